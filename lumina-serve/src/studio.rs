//! `GET /`: the studio, a page that uses this server, and its icon. Both are in the program.

use std::io::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::app::App;
use crate::options::digest;

const PAGE: &str = include_str!("../studio/index.html");
const ICON: &[u8] = include_bytes!("../assets/icon.png");

/// The page as it is sent.
pub(crate) struct Studio {
    /// `None` where it cannot be compressed; it is then sent as it is.
    compressed: Option<axum::body::Bytes>,
    etag: HeaderValue,
    policy: HeaderValue,
}

impl Studio {
    pub(crate) fn new() -> Self {
        let hex: String = digest(PAGE.as_bytes())[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let header = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        Self { compressed: gzip(PAGE.as_bytes()), etag: header(format!("W/\"{hex}\"")), policy: header(policy(PAGE)) }
    }
}

fn gzip(bytes: &[u8]) -> Option<axum::body::Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Into::into)
}

/// What the page may do: run its own script, and call the server that it comes from. Scripts and styles that are not
/// the page's own, by their digests, are not run, whatever a prompt or an answer contains.
fn policy(page: &str) -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src 'self' data: blob:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digests(page, "script"),
        digests(page, "style")
    )
}

/// The digests of the page's elements of a name, as a policy states them.
fn digests(page: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let mut digests = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((text, after)) = after.split_once('>').and_then(|(_, after)| after.split_once(&close)) else { break };
        digests.push(format!("'sha256-{}'", STANDARD.encode(digest(text.as_bytes()))));
        rest = after;
    }
    if digests.is_empty() { "'none'".to_owned() } else { digests.join(" ") }
}

pub(crate) async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let studio = &app.studio;
    let of_page = [
        (header::ETAG, studio.etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::CONTENT_SECURITY_POLICY, studio.policy.clone()),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&studio.etag) {
        return (StatusCode::NOT_MODIFIED, of_page).into_response();
    }
    match &studio.compressed {
        Some(bytes) if takes_gzip(&headers) => {
            let encoding = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
            (of_page, encoding, bytes.clone()).into_response()
        }
        _ => (of_page, PAGE).into_response(),
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_refused = |quality: &str| quality.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !parts.any(is_refused)
    })
}

pub(crate) async fn icon() -> Response {
    let of_icon = [
        (header::CONTENT_TYPE, HeaderValue::from_static("image/png")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=86400")),
    ];
    (of_icon, ICON).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_allowed_by_their_digests() {
        let page = "<style>a</style><script type=\"module\">hi</script><script>hi</script>";
        let hi = "'sha256-j0NDRmSPa5bfid2pAcUXaxCm2Dlh3TwayItZstwyeqQ='";
        assert_eq!(digests(page, "script"), format!("{hi} {hi}"));
        assert_eq!(digests("<p>", "script"), "'none'");
        assert!(!policy(PAGE).contains("unsafe"));
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let takes =
            |value: &str| takes_gzip(&[(header::ACCEPT_ENCODING, value.parse().unwrap())].into_iter().collect());
        assert!(takes("gzip") && takes("br, GZIP;q=0.5") && !takes("gzip;q=0") && !takes("br") && !takes(""));
    }
}
