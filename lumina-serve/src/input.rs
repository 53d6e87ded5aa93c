//! Images in requests.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use lumina_mgpt::{InputImage, Limits};

use crate::error::{ApiError, ApiResult};

/// Base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The file in a data URL; `param` is the field that it is in.
///
/// Nothing is fetched: a server that opens addresses for its clients opens those of its own network as well.
pub(crate) fn from_data_url(param: &str, url: &str) -> ApiResult<Vec<u8>> {
    let scheme_is = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if !scheme_is("data:") {
        let message = "images are not fetched from elsewhere: send the image itself, as `data:image/png;base64,…`";
        return Err(ApiError::bad(param, message));
    }
    let malformed = |why: &str| ApiError::bad(param, format!("the data URL cannot be read: {why}"));
    let (head, data) = url.split_once(',').ok_or_else(|| malformed("it has no comma"))?;
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(malformed("it must be in base64, as `data:image/png;base64,…`"));
    }
    BASE64.decode(data).map_err(|error| malformed(&error.to_string()))
}

/// Decodes an image of at most so many pixels.
pub(crate) fn decode(param: &str, bytes: &[u8], max_pixels: u64) -> ApiResult<InputImage> {
    let limits = Limits::default().max_pixels(max_pixels);
    InputImage::from_bytes_with_limits(bytes, limits)
        .map_err(|error| ApiError::of(lumina_mgpt::Error::from(error)).about(param))
}

/// Base64 of bytes, with padding.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_alone_are_read() {
        for url in ["data:image/png;base64,aGk=", "DATA:;BASE64,aGk", "data:image/png;name=x;base64,aGk="] {
            assert_eq!(from_data_url("image", url).unwrap(), b"hi", "{url}");
        }
        for url in ["http://127.0.0.1/x.png", "file:///etc/passwd", "", "data:image/png,hi", "data:;base64,*", "dät"] {
            assert!(from_data_url("image", url).is_err(), "{url}");
        }
    }
}
