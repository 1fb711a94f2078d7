//! All that plain HTTP answers: go to HTTPS. It reads no body and knows no service.

use std::convert::Infallible;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};

use super::request::is_plain_authority;

/// 308 to the same path on HTTPS, at this port; 400 if the request does not say which host it wants.
pub(super) async fn answer<B>(request: Request<B>, https_port: u16) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    if let Some(location) = location(&request, https_port) {
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn location<B>(request: &Request<B>, https_port: u16) -> Option<HeaderValue> {
    let host = request.headers().get(header::HOST)?.to_str().ok().filter(|h| is_plain_authority(h))?;
    let name = host.parse::<http::uri::Authority>().ok()?.host().to_owned();
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    HeaderValue::try_from(format!("https://{name}{port}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: &str, path: &str, port: u16) -> Option<String> {
        let request = Request::get(path).header("host", host).body(()).unwrap();
        location(&request, port).map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_path_is_kept_and_the_port_replaced() {
        assert_eq!(to("a.test:80", "/x?y=1", 443).unwrap(), "https://a.test/x?y=1");
        assert_eq!(to("[::1]", "/", 8443).unwrap(), "https://[::1]:8443/");
        assert_eq!(to("evil.test/..@", "/", 443), None);
    }
}
