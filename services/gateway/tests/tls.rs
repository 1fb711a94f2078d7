//! The endpoint on a real socket: TLS, HTTP/2, reload, redirect, stop.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests by the lint")]

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::server::{Certificates, Listen, serve};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().clone();
        Ca { issuer: Issuer::new(params, key), der }
    }

    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self, alpn: &[u8]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

async fn get_root(tls: &TlsConnector, address: std::net::SocketAddr) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn serves_verified_tls_and_redirects_plain_http_and_stops() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (chain, key) = ca.issue();
    let certificates = Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listen = Listen::bind(&[any], &[any]).await.unwrap();
    let at = listen.addresses().unwrap();
    let app = Router::new().route("/", get(|| async { "hello" }));
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(app, certificates.clone(), listen, async {
        let _ = stopped.await;
    }));

    let tls = ca.client(b"http/1.1");
    assert!(get_root(&tls, at[0]).await.unwrap().ends_with("hello"));
    assert!(get_root(&other.client(b"http/1.1"), at[0]).await.is_err(), "an unknown CA is refused");

    let stream = TcpStream::connect(at[0]).await.unwrap();
    let h2 = ca.client(b"h2").connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    drop(h2);

    let (chain, key) = other.issue();
    assert!(certificates.reload(chain.as_bytes(), b"no key").is_err());
    assert!(get_root(&tls, at[0]).await.is_ok(), "a broken certificate changes nothing");
    certificates.reload(chain.as_bytes(), key.as_bytes()).unwrap();
    assert!(get_root(&other.client(b"http/1.1"), at[0]).await.unwrap().ends_with("hello"));

    let mut plain = TcpStream::connect(at[1]).await.unwrap();
    plain.write_all(b"GET /x?y HTTP/1.1\r\nhost: localhost:80\r\n\r\n").await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 308"), "{text}");
    assert!(text.contains(&format!("location: https://localhost:{}/x?y", at[0].port())), "{text}");

    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
    assert!(TcpStream::connect(at[0]).await.is_err());
}
