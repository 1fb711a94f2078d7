//! Serves the simulated cloud, so that OpenStack's own clients and test suite can be run against the APIs without
//! any machine: `CAIRN_SIMULATED_PEM=cert-and-key.pem CAIRN_SIMULATED_ADDR=127.0.0.1:8443 cargo test -p
//! cairn-compute --test serve -- --ignored`. The administrator is `admin`, the password in `simulated`.

#![allow(clippy::unwrap_used)]

mod simulated;

use std::time::Duration;

use cairn_gateway::server::{Certificates, Listen, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until it is stopped"]
async fn serve_a_simulated_cloud() {
    let pem = std::fs::read(std::env::var("CAIRN_SIMULATED_PEM").unwrap()).unwrap();
    let address = std::env::var("CAIRN_SIMULATED_ADDR").unwrap_or_else(|_| "127.0.0.1:8443".into());
    let cloud = simulated::cloud().await;
    let certificates = Certificates::from_pem(&pem, &pem).unwrap();
    let listen = Listen::bind(&[address.parse().unwrap()], &[]).await.unwrap();
    let stop = tokio::time::sleep(Duration::from_secs(7200));
    serve(cloud.app, certificates, listen, stop).await.unwrap();
}
