//! Who may ask: keys, names of the server, and pages of other origins.

use axum::http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;

use crate::error::{ApiError, ApiResult};
use crate::options::{Options, digest};

/// Whether a route is for everybody: what a load balancer asks, and the page, which asks for the key itself.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/health" | "/favicon.ico")
}

/// Checks the key of a request, where keys are asked for.
///
/// Digests are compared, all of them and in constant time: an answer's time says nothing about a key.
pub(crate) fn check_key(options: &Options, path: &str, headers: &HeaderMap) -> ApiResult<()> {
    if options.keys.is_empty() || is_open(path) {
        return Ok(());
    }
    let refused = |message| Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return refused("this server asks for a key: send the header `Authorization: Bearer KEY`");
    };
    let scheme = |(scheme, _): &(&[u8], &[u8])| scheme.eq_ignore_ascii_case(b"Bearer ");
    let Some((_, key)) = value.as_bytes().split_at_checked(7).filter(scheme) else {
        return refused("the header `Authorization` must be `Bearer KEY`");
    };
    let given = digest(key.trim_ascii());
    let is_known = options.keys.iter().fold(subtle::Choice::from(0), |known, key| known | key.ct_eq(&given));
    if bool::from(is_known) { Ok(()) } else { refused("this key is not one of the server's") }
}

/// Refuses requests to other names than the server's, where it has some.
pub(crate) fn check_host(options: &Options, headers: &HeaderMap) -> ApiResult<()> {
    if options.hosts.is_empty() {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // Without the port. Colons of an address are in brackets.
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    if options.hosts.contains(&name.to_ascii_lowercase()) {
        return Ok(());
    }
    let message =
        "this server is not called by this name; allow it by `--allowed-host`, or ask for keys by `--api-key`";
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", message))
}

/// Refuses what pages of other origins send. A browser lets any page send some requests to any server, also to one
/// that listens on this machine alone; it only keeps the answer from the page.
pub(crate) fn check_origin(options: &Options, headers: &HeaderMap) -> ApiResult<()> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host.as_bytes());
    if options.cors_origins.contains(origin) || (own.is_some() && own == host) {
        return Ok(());
    }
    let message = "pages of this origin may not use this server; allow it by `--cors-origin`";
    Err(ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn one_of_the_keys_is_asked_for() {
        let options = Options::new().api_key("first").unwrap().api_key("second").unwrap();
        let check = |value: &str| check_key(&options, "/v1/models", &headers(&[(header::AUTHORIZATION, value)]));
        for right in ["Bearer first", "bearer second", "Bearer  second "] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in ["Bearer firs", "Bearer firstt", "Bearer ", "Bearer", "Basic first", "first", ""] {
            assert_eq!(check(wrong).unwrap_err().status, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert!(check_key(&options, "/metrics", &HeaderMap::new()).is_err());
        assert_eq!(check_key(&options, "/health", &HeaderMap::new()), Ok(()));
        assert_eq!(check_key(&Options::new(), "/v1/models", &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn the_server_has_names() {
        let options = Options::new().host("LocalHost").unwrap().host("[::1]").unwrap();
        let check = |host: &str| check_host(&options, &headers(&[(header::HOST, host)]));
        for right in ["localhost", "localhost:8080", "LOCALHOST:1", "[::1]", "[::1]:8080"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in ["evil.example", "evil.example:8080", "localhost.evil.example", "[::2]:80", "", ":80", "::1"] {
            assert_eq!(check(wrong).unwrap_err().status, StatusCode::MISDIRECTED_REQUEST, "{wrong}");
        }
        assert!(check_host(&options, &HeaderMap::new()).is_err());
        assert_eq!(check_host(&Options::new(), &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let options = Options::new().cors_origin("https://example.org").unwrap();
        let check =
            |origin| check_origin(&options, &headers(&[(header::ORIGIN, origin), (header::HOST, "localhost:8080")]));
        for right in ["http://localhost:8080", "https://example.org"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in ["null", "http://localhost:8081", "http://example.org", "https://example.org.evil"] {
            assert_eq!(check(wrong).unwrap_err().status, StatusCode::FORBIDDEN, "{wrong}");
        }
        assert_eq!(check_origin(&options, &HeaderMap::new()), Ok(()));
    }
}
