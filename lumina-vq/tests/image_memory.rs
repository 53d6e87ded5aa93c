//! The memory that image files take (`--nocapture` prints it, and the seconds): a test binary of its own, as it counts
//! a whole process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows them in test functions, but not in what they share"
)]

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
use lumina_testing::Counting;
use lumina_vq::Error;
use lumina_vq::preprocess::{InputImage, Limits};

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// What may be held besides the limit: rows, tables of the decompressors, threads.
const BESIDES: usize = 12 << 20;

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Tiny files that state large images, and chunks that are longer than their file.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let small = DynamicImage::new_rgb8(16, 16);
    let large = [13_000u16, 13_700];
    let mut files = Vec::new();

    let mut gif = encoded(&small, ImageFormat::Gif);
    for (at, side) in [(6, large[0]), (8, large[1])] {
        gif[at..at + 2].copy_from_slice(&side.to_le_bytes());
    }
    files.push(("GIF with a large screen", gif.clone()));
    let frame = gif.windows(10).position(|part| part[0] == 0x2C && part[5..9] == [16, 0, 16, 0]).unwrap();
    for (at, side) in [(frame + 5, large[0]), (frame + 7, large[1])] {
        gif[at..at + 2].copy_from_slice(&side.to_le_bytes());
    }
    files.push(("GIF with a large frame", gif));

    let webp = encoded(&small, ImageFormat::WebP);
    let mut lying = webp.clone();
    lying[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    files.push(("WebP with a chunk of 4 GB", lying));
    // VP8L: 14 bits each of width − 1 and height − 1 after the signature.
    let mut wide = webp.clone();
    let sides = (16_383u32 - 1) | (16_383 - 1) << 14;
    wide[21..25].copy_from_slice(&sides.to_le_bytes());
    files.push(("lossless WebP of 16,383 × 16,383", wide));
    for kind in [*b"ICCP", *b"EXIF", *b"ANIM", *b"ANMF", *b"ALPH"] {
        // VP8X with all flags, 16 × 16, and a chunk that lies about its length.
        let mut chunks = b"WEBPVP8X\x0a\0\0\0\x3e\0\0\0\x0f\0\0\x0f\0\0".to_vec();
        chunks.extend(kind);
        chunks.extend(0xFFFF_FFF0u32.to_le_bytes());
        let header = [&b"RIFF"[..], &u32::MAX.to_le_bytes()].concat();
        files.push(("extended WebP with a chunk of 4 GB", [header, chunks].concat()));
    }
    let mut chunks = b"WEBPVP8X\x0a\0\0\0\x02\0\0\0".to_vec();
    chunks.extend([0xFE, 0x3F, 0, 0xFE, 0x2F, 0]);
    chunks.extend(b"ANIM\x06\0\0\0\0\0\0\0\0\0ANMF\x18\0\0\0");
    chunks.extend([0; 24]);
    let header = [&b"RIFF"[..], &(chunks.len() as u32).to_le_bytes()].concat();
    files.push(("animated WebP with a large canvas", [header, chunks].concat()));

    for progressive in [false, true] {
        let mut jpeg = encoded(&small, ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 1] = if progressive { 0xC2 } else { 0xC0 };
        jpeg[frame + 5..frame + 7].copy_from_slice(&large[1].to_be_bytes());
        jpeg[frame + 7..frame + 9].copy_from_slice(&large[0].to_be_bytes());
        files.push(("JPEG with a large frame", jpeg.clone()));
        // A grey progressive scan of DC alone, of few bytes for many blocks.
        jpeg[frame + 11] = 0x44;
        files.push(("JPEG with a large frame and coarse chroma", jpeg));
    }

    let mut bmp = encoded(&small, ImageFormat::Bmp);
    for (at, side) in [(18, large[0]), (22, large[1])] {
        bmp[at..at + 4].copy_from_slice(&u32::from(side).to_le_bytes());
    }
    files.push(("BMP with a large header", bmp.clone()));
    // RLE8: an end of the bitmap at once.
    bmp[28] = 8;
    bmp[30] = 1;
    bmp.extend([0; 1100]);
    files.push(("RLE BMP with a large header", bmp));

    let field = |tag: u16, kind: u16, value: u32| {
        [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &1u32.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    for (compression, bits, tile) in [(1, 8, 16), (8, 8, 1 << 30), (5, 32, 13_000), (7, 8, 13_000), (4, 1, 65_000)] {
        let entries = [
            field(256, 4, 13_000),
            field(257, 4, 13_000),
            field(258, 3, bits),
            field(259, 3, compression),
            field(262, 3, 1),
            field(277, 3, 1),
            field(322, 4, tile),
            field(323, 4, tile),
            field(324, 4, 8),
            field(325, 4, 100),
        ];
        let count = (entries.len() as u16).to_le_bytes();
        let tiff = [&b"II\x2A\0\x08\0\0\0"[..], &count, &entries.concat(), &[0; 4]].concat();
        files.push(("TIFF with large tiles", tiff));
    }

    let mut png = encoded(&small, ImageFormat::Png);
    png[16..18].copy_from_slice(&[0, 0]);
    png[18..20].copy_from_slice(&large[0].to_be_bytes());
    png[22..24].copy_from_slice(&large[1].to_be_bytes());
    let crc = !png[12..29].iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    files.push(("PNG with a large header", png));
    files
}

/// Everything in one test: tests of one process that run side by side would be counted together.
#[test]
fn decoding_takes_no_more_memory_than_the_limit() {
    for (name, bytes) in hostile() {
        let start = std::time::Instant::now();
        let (result, peak) = COUNTING.peak_of(|| InputImage::from_bytes(&bytes).map(|_| ()));
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {} bytes take {} MB and {seconds:.2} s: {result:?}", bytes.len(), peak >> 20);
        assert!(peak < 1 << 30, "{name}: {peak} bytes");
    }

    for file in ["lossy.webp", "lossy_alpha.webp", "animated.webp", "animated_part.webp"] {
        let bytes = std::fs::read(format!("{}/tests/image_files/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let (image, peak) = COUNTING.peak_of(|| InputImage::from_bytes(&bytes).unwrap());
        let pixels = u64::from(image.width()) * u64::from(image.height());
        println!("{file}: {:.2} bytes a pixel", peak as f64 / pixels as f64);
        assert!(peak as u64 <= 12 * pixels + BESIDES as u64 / 4, "{file}: {peak} bytes");
    }

    // What decoding really takes, of each kind of file, is within what is checked against the limit.
    let side = 1500;
    let pixels = DynamicImage::new_rgba8(side, side);
    let images = [
        pixels.clone(),
        DynamicImage::new_rgb8(side, side),
        DynamicImage::new_luma8(side, side),
        DynamicImage::new_luma_a8(side, side),
        DynamicImage::new_rgba16(side, side),
        DynamicImage::new_luma16(side, side),
        DynamicImage::new_luma_a16(side, side),
    ];
    for format in
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP]
    {
        for image in &images {
            let mut bytes = Cursor::new(Vec::new());
            if image.write_to(&mut bytes, format).is_err() {
                continue;
            }
            let bytes = bytes.into_inner();
            let name = format!("{format:?} of {:?}", image.color());
            // The least limit, to 1 %, under which the file opens.
            let (mut low, mut high) = (0, 64 * u64::from(side * side));
            while high - low > u64::from(side * side) / 100 {
                let mut limits = Limits::default();
                limits.image_bytes = (low + high) / 2;
                match InputImage::from_bytes_with_limits(&bytes, limits) {
                    Ok(_) => high = limits.image_bytes,
                    Err(Error::ImageMemory { limit, .. }) => {
                        assert_eq!(limit, limits.image_bytes);
                        low = limits.image_bytes;
                    }
                    Err(error) => panic!("{name}: {error}"),
                }
            }
            let mut limits = Limits::default();
            limits.image_bytes = high;
            let (_, peak) = COUNTING.peak_of(|| InputImage::from_bytes_with_limits(&bytes, limits).unwrap());
            let per_pixel = |bytes: u64| bytes as f64 / f64::from(side * side);
            println!("{name}: {:.2} bytes a pixel, limit {:.2}", per_pixel(peak as u64), per_pixel(high));
            assert!(peak as u64 <= high + BESIDES as u64 / 4, "{name}: {peak} bytes under a limit of {high}");
        }
    }
}
