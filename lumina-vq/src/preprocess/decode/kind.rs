//! What a file is, by its first bytes.

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Png,
    Jpeg,
    Gif,
    Bmp,
    /// A BMP without its file header.
    Dib,
    Tiff,
    WebP,
    /// A format that is known, but not supported.
    Other(&'static str),
    Unknown,
}

/// The kind of a file with these first bytes.
pub(super) fn file_kind(bytes: &[u8]) -> FileKind {
    let starts = |start: &[u8]| bytes.starts_with(start);
    let at = |position: usize, word: &[u8]| bytes.get(position..).is_some_and(|rest| rest.starts_with(word));
    if starts(b"\x89PNG\r\n\x1a\n") {
        FileKind::Png
    } else if starts(b"\xFF\xD8\xFF") {
        FileKind::Jpeg
    } else if starts(b"GIF87a") || starts(b"GIF89a") {
        FileKind::Gif
    } else if [b"II\x2A\0", b"MM\0\x2A", b"II\x2B\0", b"MM\0\x2B"].iter().any(|start| starts(*start)) {
        FileKind::Tiff
    } else if starts(b"RIFF") && at(8, b"WEBP") {
        FileKind::WebP
    } else if starts(b"BM") {
        FileKind::Bmp
    } else if at(4, b"ftyp") {
        iso_media(bytes)
    } else if starts(b"\0\0\0\x0CJXL \r\n\x87\n") || starts(b"\xFF\x0A") {
        FileKind::Other("JPEG XL")
    } else if starts(b"\0\0\0\x0CjP  \r\n\x87\n") || starts(b"\xFF\x4F\xFF\x51") {
        FileKind::Other("JPEG 2000")
    } else if let Some(kind) = other(bytes) {
        FileKind::Other(kind)
    } else if is_dib(bytes) {
        FileKind::Dib
    } else {
        FileKind::Unknown
    }
}

/// Files of the ISO base media format, by their brands: the first, and the compatible ones.
fn iso_media(bytes: &[u8]) -> FileKind {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let brands = bytes.get(8..length.clamp(12, 256).min(bytes.len())).unwrap_or_default();
    let mut brands = brands.as_chunks::<4>().0.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, brand)| brand);
    let known = brands.find_map(|brand| match brand {
        b"avif" | b"avis" => Some("AVIF"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => Some("HEIC"),
        b"mif1" | b"mif2" | b"msf1" | b"miaf" => Some("HEIF (HEIC or AVIF)"),
        b"jp2 " | b"jpx " | b"jpm " | b"mjp2" => Some("JPEG 2000"),
        b"crx " => Some("Canon raw (CR3)"),
        _ => None,
    });
    FileKind::Other(known.unwrap_or("video (MP4 or QuickTime)"))
}

/// Formats that people take for images, by their first bytes.
fn other(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 14] = [
        (b"%PDF-", "PDF"),
        (b"%!PS", "PostScript"),
        (b"8BPS", "Photoshop (PSD)"),
        (b"qoif", "the Quite OK Image format (qoi)"),
        (b"DDS ", "DDS"),
        (b"farbfeld", "farbfeld"),
        (b"\x76\x2F\x31\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"\0\0\x01\0", "ICO"),
        (b"\0\0\x02\0", "CUR"),
        (b"gimp xcf", "GIMP (XCF)"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x1F\x8B", "gzip"),
        (b"\x0A\x05\x01", "PCX"),
    ];
    if let Some((_, name)) = KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(name);
    }
    // Netpbm: P1 to P7 and a space.
    if let [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] = bytes {
        return Some("Netpbm (PBM, PGM, PPM or PAM)");
    }
    let text = &bytes[..bytes.len().min(1024)];
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii_start();
    let contains = |word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    if !text.starts_with(b"<") {
        None
    } else if contains(b"<svg") {
        Some("SVG")
    } else if contains(b"<html") || contains(b"<!doctype html") {
        Some("HTML")
    } else {
        Some("XML")
    }
}

/// The header of a bitmap: one of the known lengths, one plane, and a number of bits that it can have.
fn is_dib(bytes: &[u8]) -> bool {
    let u16_at = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let [planes, bits] = match bytes {
        [12, 0, 0, 0, ..] => [8, 10],
        [40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0, ..] => [12, 14],
        _ => return false,
    };
    u16_at(planes) == Some(1) && matches!(u16_at(bits), Some(1 | 2 | 4 | 8 | 16 | 24 | 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_by_content() {
        let named = |bytes: &[u8]| match file_kind(bytes) {
            FileKind::Other(name) => name,
            other => panic!("{other:?}"),
        };
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0heicmif1", "HEIF (HEIC or AVIF)"),
            (b"\0\0\0\x14ftypheix\0\0\0\0heix", "HEIC"),
            (b"\0\0\0\x14ftypmsf1\0\0\0\0hevc", "HEIF (HEIC or AVIF)"),
            (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
            (b"\0\0\0\x0CjP  \r\n\x87\n\0\0", "JPEG 2000"),
            (b"\xFF\x4F\xFF\x51\0", "JPEG 2000"),
            (b"\xFF\x0A\0\0", "JPEG XL"),
            (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"\xEF\xBB\xBF <?xml version='1.0'?>\n<!-- a --><SVG/>", "SVG"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b"%PDF-1.7", "PDF"),
            (b"P6\n3 3\n255\n", "Netpbm (PBM, PGM, PPM or PAM)"),
        ] {
            assert_eq!(named(bytes), name);
        }
        assert_eq!(file_kind(b"no image"), FileKind::Unknown);
        assert_eq!(file_kind(b""), FileKind::Unknown);
        assert_eq!(file_kind(b"\0\0\0\x18ftyp"), FileKind::Other("video (MP4 or QuickTime)"));
    }
}
