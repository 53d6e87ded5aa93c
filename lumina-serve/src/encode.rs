//! Images as files, with what made them.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage};
use lumina_mgpt::{ImageSize, Prompt, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
    Jpeg,
    Webp,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }
}

/// What a PNG says of how it was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Provenance {
    /// JSON: the request without the codes of its images, the model, the version.
    lumina: String,
    /// The same in words, as other programs write it.
    parameters: String,
}

impl Provenance {
    pub(crate) fn new(request: &Request, model: &str) -> Self {
        // By way of the text, in which an `f32` has as few digits as it needs.
        let text = serde_json::to_string(request).unwrap_or_default();
        let mut value = serde_json::from_str(&text).unwrap_or_default();
        without_codes(&mut value);
        // How it was watched changes nothing of the image, and the file is the same to the byte.
        if let Some(options) = value.get_mut("options").and_then(Value::as_object_mut) {
            options.remove("preview_every_rows");
        }
        let lumina = json!({ "request": value, "model": model, "version": env!("CARGO_PKG_VERSION") });
        Self { lumina: lumina.to_string(), parameters: parameters(request, model) }
    }
}

/// Leaves out the codes of images, which only this model understands, and which are larger than the rest.
fn without_codes(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.contains_key("rows") && map.contains_key("columns") {
                map.remove("codes");
            }
            map.values_mut().for_each(without_codes);
        }
        Value::Array(values) => values.iter_mut().for_each(without_codes),
        _ => {}
    }
}

/// The prompt, then the settings in one line.
fn parameters(request: &Request, model: &str) -> String {
    let sampling = &request.options.sampling;
    let mut line = vec![format!("Seed: {}", sampling.seed)];
    let mut text = String::new();
    if let Prompt::Task(task, input) = &request.prompt {
        text = input.text.clone().unwrap_or_default();
        line.push(format!("Task: {}", task.spec().name));
        line.extend(input.size.map(|size| format!("Size: {size}")));
    }
    line.push(format!("Guidance scale: {}", sampling.guidance_scale));
    if sampling.greedy {
        line.push("Greedy: true".to_owned());
    } else {
        line.push(format!("Temperature: {}, Top-k: {}", sampling.temperature, sampling.image_top_k));
        line.extend(sampling.top_p.map(|top_p| format!("Top-p: {top_p}")));
        line.extend(sampling.min_p.map(|min_p| format!("Min-p: {min_p}")));
    }
    line.push(format!("Model: {model}, Version: lumina {}", env!("CARGO_PKG_VERSION")));
    let line = line.join(", ");
    if text.is_empty() { line } else { format!("{text}\n{line}") }
}

/// A whole image as a file; `quality` is that of JPEG, 0 to 100.
pub(crate) fn whole(image: &RgbImage, format: Format, quality: u8, made_by: &Provenance) -> ApiResult<Vec<u8>> {
    let (width, height) = image.dimensions();
    match format {
        Format::Png => png(image, png::ColorType::Rgb, (width, height), Some(made_by)),
        _ => other(image, ExtendedColorType::Rgb8, (width, height), format, quality),
    }
}

/// The upper rows of an image of this size as a file of the whole size: the rest is transparent, in JPEG grey.
pub(crate) fn partial(upper: &RgbImage, size: ImageSize, format: Format, quality: u8) -> ApiResult<Vec<u8>> {
    let (width, height) = (size.width_px(), size.height_px());
    let pixel = |x: u32, y: u32| (y < upper.height() && x < upper.width()).then(|| upper.get_pixel(x, y).0);
    if format == Format::Jpeg {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb(pixel(x, y).unwrap_or([128; 3])));
        return other(&image, ExtendedColorType::Rgb8, (width, height), format, quality);
    }
    let image = RgbaImage::from_fn(width, height, |x, y| match pixel(x, y) {
        Some([r, g, b]) => Rgba([r, g, b, 255]),
        None => Rgba([0; 4]),
    });
    match format {
        Format::Png => png(&image, png::ColorType::Rgba, (width, height), None),
        _ => other(&image, ExtendedColorType::Rgba8, (width, height), format, quality),
    }
}

fn png(
    pixels: &[u8],
    color: png::ColorType,
    (width, height): (u32, u32),
    by: Option<&Provenance>,
) -> ApiResult<Vec<u8>> {
    let mut file = Vec::new();
    let mut write = || -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        if let Some(by) = by {
            encoder.add_itxt_chunk("parameters".to_owned(), by.parameters.clone())?;
            encoder.add_itxt_chunk("lumina".to_owned(), by.lumina.clone())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()
    };
    write().map_err(|error| ApiError::failed(&error))?;
    Ok(file)
}

fn other(
    pixels: &[u8],
    color: ExtendedColorType,
    (width, height): (u32, u32),
    format: Format,
    quality: u8,
) -> ApiResult<Vec<u8>> {
    let mut file = Vec::new();
    match format {
        Format::Jpeg => {
            JpegEncoder::new_with_quality(&mut file, quality.clamp(1, 100)).write_image(pixels, width, height, color)
        }
        _ => WebPEncoder::new_lossless(&mut file).write_image(pixels, width, height, color),
    }
    .map_err(|error| ApiError::failed(&error))?;
    Ok(file)
}
