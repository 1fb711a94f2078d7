//! Microversions: which one a request speaks, and the headers that say so.
//!
//! What an answer looks like depends on it, so every handler that shapes something takes a [`Mv`].

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// A microversion `2.N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mv(pub u16);

impl Mv {
    /// The oldest.
    pub const MIN: Mv = Mv(1);
    /// The newest whose every answer is shaped here.
    pub const MAX: Mv = Mv(96);

    /// As `2.N`.
    pub fn text(self) -> String {
        format!("2.{}", self.0)
    }

    /// Whether this is `2.n` or newer.
    pub fn since(self, n: u16) -> bool {
        self.0 >= n
    }

    /// 404 from `2.n` on: what was removed then.
    pub fn removed_since(self, n: u16) -> ApiResult<()> {
        if self.since(n) { Err(unknown()) } else { Ok(()) }
    }

    /// 404 before `2.n`: what was added then.
    pub fn added_in(self, n: u16) -> ApiResult<()> {
        if self.since(n) { Ok(()) } else { Err(unknown()) }
    }
}

/// The answer for what this microversion does not have.
pub fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.")
}

impl<S: Send + Sync> FromRequestParts<S> for Mv {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get::<Mv>().copied().unwrap_or(Mv::MIN))
    }
}

const LEGACY: &str = "x-openstack-nova-api-version";
const CURRENT: &str = "openstack-api-version";

/// Reads which microversion a request wants, refuses what is not spoken, and names it in the answer.
pub async fn negotiate(mut request: Request, next: Next) -> Response {
    let wanted = match wanted(request.headers()) {
        Ok(mv) => mv,
        Err(e) => return named(e.into_response(), None),
    };
    request.extensions_mut().insert(wanted);
    named(next.run(request).await, Some(wanted))
}

fn wanted(headers: &HeaderMap) -> ApiResult<Mv> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    // The header common to all services may name several, each with its service.
    let named = text(CURRENT).into_iter().flat_map(|v| v.split(',')).find_map(|part| {
        let mut words = part.split_whitespace();
        (words.next()?.eq_ignore_ascii_case("compute")).then(|| words.next().unwrap_or("").to_owned())
    });
    match named.or_else(|| text(LEGACY).map(|v| v.trim().to_owned())) {
        None => Ok(Mv::MIN),
        Some(v) if v == "latest" => Ok(Mv::MAX),
        Some(v) => parse(&v),
    }
}

fn parse(text: &str) -> ApiResult<Mv> {
    let malformed = || {
        ApiError::bad_request(format!(
            "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
        ))
    };
    let digits = |t: &str| !t.is_empty() && t.len() <= 4 && t.bytes().all(|b| b.is_ascii_digit());
    let (major, minor) = text.split_once('.').ok_or_else(malformed)?;
    if !digits(major)
        || !digits(minor)
        || major.starts_with('0')
        || (minor.len() > 1 && minor.starts_with('0'))
    {
        return Err(malformed());
    }
    match (major, minor.parse::<u16>()) {
        ("2", Ok(n)) if (Mv::MIN..=Mv::MAX).contains(&Mv(n)) => Ok(Mv(n)),
        _ => Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            format!(
                "Version {text} is not supported by the API. Minimum is {} and maximum is {}.",
                Mv::MIN.text(),
                Mv::MAX.text()
            ),
        )),
    }
}

fn named(mut response: Response, mv: Option<Mv>) -> Response {
    let headers = response.headers_mut();
    if let Some(mv) = mv {
        if let Ok(value) = HeaderValue::from_str(&mv.text()) {
            headers.insert(LEGACY, value);
        }
        if let Ok(value) = HeaderValue::from_str(&format!("compute {}", mv.text())) {
            headers.insert(CURRENT, value);
        }
    }
    headers.append(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
    headers.append(header::VARY, HeaderValue::from_static("X-OpenStack-Nova-API-Version"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &'static str, value: &str) -> Result<Mv, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        wanted(&headers).map_err(|e| e.status.as_u16())
    }

    #[test]
    fn either_header_names_the_version() {
        assert_eq!(wanted(&HeaderMap::new()).unwrap(), Mv::MIN);
        assert_eq!(ask(LEGACY, "2.60"), Ok(Mv(60)));
        assert_eq!(ask(CURRENT, "compute 2.26"), Ok(Mv(26)));
        assert_eq!(ask(CURRENT, "volume 3.5, compute 2.26"), Ok(Mv(26)));
        assert_eq!(ask(CURRENT, "volume 3.5"), Ok(Mv::MIN));
        assert_eq!(ask(LEGACY, "latest"), Ok(Mv::MAX));
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        for outside in ["2.0", "2.9999", "3.1", "1.1"] {
            assert_eq!(ask(LEGACY, outside), Err(406), "{outside}");
        }
        for malformed in ["2", "2.", "2.01", "a.b", "2.1.1", "-2.1", ""] {
            assert_eq!(ask(LEGACY, malformed), Err(400), "{malformed}");
        }
    }
}
