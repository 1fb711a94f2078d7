//! Microversions: which one a request speaks, and the headers that say so.
//!
//! Each API that has them names one [`Microversions`] and wraps its routes in it; handlers that shape an answer take
//! the [`Minor`]. It decides nothing about what a microversion means.

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{ApiError, ApiResult};

/// The header that all services share: `OpenStack-API-Version: volume 3.27, compute 2.96`.
const SHARED: &str = "openstack-api-version";

/// The microversions that an API speaks, `MAJOR.min` to `MAJOR.max`.
#[derive(Debug)]
pub struct Microversions {
    /// The API's name in the shared header.
    pub service: &'static str,
    /// The number before the dot.
    pub major: u32,
    /// The oldest, which is what a request speaks that names none.
    pub min: u32,
    /// The newest whose every answer is shaped.
    pub max: u32,
    /// The header of the API's own from before there was a shared one, in lower case.
    pub legacy: Option<&'static str>,
}

/// The minor number of the microversion that a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32);

impl Minor {
    /// Whether this is `n` or newer.
    pub fn since(self, n: u32) -> bool {
        self.0 >= n
    }

    /// 404 from `n` on: what was removed then.
    pub fn removed_since(self, n: u32) -> ApiResult<()> {
        if self.since(n) { Err(unknown()) } else { Ok(()) }
    }

    /// 404 before `n`: what was added then.
    pub fn added_in(self, n: u32) -> ApiResult<()> {
        if self.since(n) { Ok(()) } else { Err(unknown()) }
    }
}

/// The answer for what a microversion does not have.
fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.")
}

impl<S: Send + Sync> FromRequestParts<S> for Minor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let agreed = parts.extensions.get::<Minor>().copied();
        agreed.ok_or_else(|| ApiError::internal("a route is asked for its microversion, and has none"))
    }
}

impl Microversions {
    /// The oldest, as `2.1`.
    pub fn oldest(&self) -> String {
        self.text(self.min)
    }

    /// The newest, as `2.96`.
    pub fn newest(&self) -> String {
        self.text(self.max)
    }

    fn text(&self, minor: u32) -> String {
        format!("{}.{minor}", self.major)
    }

    /// Wraps routes: reads which microversion a request wants (406 if it is not spoken, 400 if it is none), gives it
    /// to the handlers, and names it in the answer.
    pub fn around<S: Clone + Send + Sync + 'static>(&'static self, routes: Router<S>) -> Router<S> {
        routes.layer(middleware::from_fn(|request: Request, next: Next| self.negotiate(request, next)))
    }

    async fn negotiate(&self, mut request: Request, next: Next) -> Response {
        let minor = match self.wanted(request.headers()) {
            Ok(minor) => minor,
            Err(e) => return self.named(e.into_response(), None),
        };
        request.extensions_mut().insert(minor);
        self.named(next.run(request).await, Some(minor))
    }

    fn wanted(&self, headers: &HeaderMap) -> ApiResult<Minor> {
        let shared = headers.get_all(SHARED).iter().filter_map(|v| v.to_str().ok());
        let named = shared.flat_map(|v| v.split(',')).find_map(|part| {
            let mut words = part.split_whitespace();
            let ours = words.next()?.eq_ignore_ascii_case(self.service);
            ours.then(|| words.next().unwrap_or(""))
        });
        let legacy = || self.legacy.and_then(|name| headers.get(name)?.to_str().ok()).map(str::trim);
        match named.or_else(legacy) {
            None => Ok(Minor(self.min)),
            Some("latest") => Ok(Minor(self.max)),
            Some(text) => self.parse(text),
        }
    }

    fn parse(&self, text: &str) -> ApiResult<Minor> {
        let number = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        match number {
            Some((major, minor)) if major == self.major && (self.min..=self.max).contains(&minor) => {
                Ok(Minor(minor))
            }
            Some(_) => Err(ApiError::new(
                StatusCode::NOT_ACCEPTABLE,
                format!(
                    "Version {text} is not supported by the API. Minimum is {} and maximum is {}.",
                    self.oldest(),
                    self.newest()
                ),
            )),
            None => Err(ApiError::bad_request(format!(
                "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            ))),
        }
    }

    /// The answer, with the microversion it speaks and what it varies with.
    fn named(&self, mut response: Response, minor: Option<Minor>) -> Response {
        let headers = response.headers_mut();
        if let Some(text) = minor.map(|m| self.text(m.0)) {
            let values = [(Some(SHARED), format!("{} {text}", self.service)), (self.legacy, text)];
            for (name, value) in values {
                if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
        for name in [Some(SHARED), self.legacy].into_iter().flatten() {
            headers.append(header::VARY, HeaderValue::from_static(name));
        }
        response
    }
}

/// One of the two numbers; none is written with a leading zero, and none is longer than four digits.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = "x-openstack-nova-api-version";
    const COMPUTE: Microversions =
        Microversions { service: "compute", major: 2, min: 1, max: 96, legacy: Some(LEGACY) };
    const VOLUME: Microversions =
        Microversions { service: "volume", major: 3, min: 0, max: 67, legacy: None };

    fn ask(api: &Microversions, name: &'static str, value: &str) -> Result<u32, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        api.wanted(&headers).map(|m| m.0).map_err(|e| e.status.as_u16())
    }

    #[test]
    fn either_header_names_the_version() {
        assert_eq!(COMPUTE.wanted(&HeaderMap::new()).unwrap(), Minor(1));
        assert_eq!(ask(&COMPUTE, LEGACY, "2.60"), Ok(60));
        assert_eq!(ask(&COMPUTE, LEGACY, "latest"), Ok(96));
        assert_eq!(ask(&COMPUTE, SHARED, "compute 2.26"), Ok(26));
        assert_eq!(ask(&COMPUTE, SHARED, "volume 3.5, compute 2.26"), Ok(26));
        assert_eq!(ask(&COMPUTE, SHARED, "volume 3.5"), Ok(1));
        assert_eq!(ask(&VOLUME, SHARED, "volume 3.27"), Ok(27));
        assert_eq!(ask(&VOLUME, SHARED, "volume 3.0"), Ok(0));
        assert_eq!(ask(&VOLUME, SHARED, "volume latest"), Ok(67));
        assert_eq!(ask(&VOLUME, LEGACY, "2.60"), Ok(0));
    }

    #[test]
    fn several_shared_headers_are_one() {
        let mut headers = HeaderMap::new();
        headers.append(SHARED, HeaderValue::from_static("compute 2.26"));
        headers.append(SHARED, HeaderValue::from_static("volume 3.5"));
        assert_eq!(VOLUME.wanted(&headers).unwrap(), Minor(5));
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        for outside in ["2.0", "2.97", "2.9999", "3.1", "1.1", "0.1"] {
            assert_eq!(ask(&COMPUTE, LEGACY, outside), Err(406), "{outside}");
        }
        for malformed in ["2", "2.", "2.01", "02.1", "a.b", "2.1.1", "-2.1", "2.12345", ""] {
            assert_eq!(ask(&COMPUTE, LEGACY, malformed), Err(400), "{malformed}");
        }
        assert_eq!(ask(&VOLUME, SHARED, "volume 2.0"), Err(406));
        assert_eq!(ask(&VOLUME, SHARED, "volume"), Err(400));
    }

    #[test]
    fn the_answer_names_what_it_speaks_and_varies_with() {
        let answer = COMPUTE.named(StatusCode::OK.into_response(), Some(Minor(26)));
        assert_eq!(answer.headers()[SHARED], "compute 2.26");
        assert_eq!(answer.headers()[LEGACY], "2.26");
        assert_eq!(answer.headers().get_all(header::VARY).iter().count(), 2);
        let refusal = VOLUME.named(unknown().into_response(), None);
        assert!(!refusal.headers().contains_key(SHARED));
        assert_eq!(refusal.headers()[header::VARY], SHARED);
    }
}
