//! A cloud of one service, and short words to talk to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use cairn_gateway::{ApiResult, Authenticate, Caller, server};
use cairn_network::model::{
    HostStatus, Network, NetworkStatus, Phase, Port, PortStatus, Router as R, RouterStatus,
};
use cairn_network::{Service, mount};
use cairn_state::{Abort, LocalStore, Record, StoreExt};
use serde_json::{Value, json};
use tower::ServiceExt;

/// The node of the tests.
pub const NODE: &str = "cairn-test";

/// A caller from a token like `member:p1`: a role in a project.
pub fn caller(token: &str) -> Option<Caller> {
    let (role, project) = token.split_once(':')?;
    let roles: &[&str] = match role {
        "admin" => &["admin", "manager", "member", "reader"],
        "member" => &["member", "reader"],
        "reader" => &["reader"],
        _ => return None,
    };
    Some(Caller {
        user_id: format!("user-{role}"),
        project_id: project.into(),
        roles: roles.iter().map(|r| (*r).to_string()).collect::<BTreeSet<_>>(),
        ..Caller::default()
    })
}

struct Tokens;

#[async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, token: &str) -> ApiResult<Option<Arc<Caller>>> {
        Ok(caller(token).map(Arc::new))
    }
}

/// A cloud.
pub struct Cloud {
    /// The service.
    pub svc: Arc<Service>,
    app: Router,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body; null if empty.
    pub body: Value,
}

impl Answer {
    /// The body, if the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The resource of this name in the body, if the status is this one.
    #[track_caller]
    pub fn made(self, name: &str) -> Value {
        self.expect(201)[name].take()
    }

    /// Refused with this status, under this name.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["NeutronError"]["type"], code, "{}", self.body);
    }
}

impl Cloud {
    /// A cloud without nodes.
    pub fn new() -> Cloud {
        let svc = Service::new(LocalStore::in_memory().unwrap());
        let limits = server::Gateway::new(vec![mount(&svc)], Arc::new(Tokens));
        Cloud { app: limits.router(), svc }
    }

    /// A cloud of one node.
    pub async fn with_node() -> Cloud {
        let cloud = Cloud::new();
        cloud.node_speaks().await;
        cloud
    }

    /// The node's network agent says that it is there.
    pub async fn node_speaks(&self) {
        self.speaks(NODE).await;
    }

    /// Some node's network agent says that it is there.
    pub async fn speaks(&self, node: &str) {
        let now = jiff::Timestamp::now();
        let status = HostStatus {
            node: node.into(),
            version: "0".into(),
            started_at: now,
            heartbeat_at: now,
            physical_networks: vec!["lan".into()],
            tunnel_ip: None,
            tunnel_mtu: 0,
            error: None,
        };
        self.svc.store.put_record(&status).await.unwrap();
    }

    /// Asks `METHOD /network/v2.0/PATH`.
    pub async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/network/v2.0/{path}"))
            .header("host", "cloud.test")
            .header("x-auth-token", token)
            .header("content-type", "application/json");
        let body = body.map_or(Body::empty(), |b| Body::from(b.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    /// Sends any request.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status, body }
    }

    /// `GET`.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask("GET", path, token, None).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.ask("POST", path, token, Some(body)).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, token: &str, body: Value) -> Answer {
        self.ask("PUT", path, token, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.ask("DELETE", path, token, None).await
    }

    /// The ids in a list.
    pub async fn ids(&self, path: &str, token: &str) -> Vec<String> {
        let body = self.get(path, token).await.expect(200);
        let list = body.as_object().unwrap().values().next().unwrap().as_array().unwrap().clone();
        list.iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A network.
    pub async fn network(&self, token: &str) -> String {
        let made = self.post("networks", token, json!({"network": {"name": "n"}})).await.made("network");
        text(&made["id"])
    }

    /// An external network with the subnet 203.0.113.0/24.
    pub async fn external(&self) -> String {
        let body = json!({"network": {"name": "public", "router:external": true}});
        let id = text(&self.post("networks", "admin:a", body).await.made("network")["id"]);
        self.subnet("admin:a", &id, json!({"cidr": "203.0.113.0/24", "enable_dhcp": false})).await;
        id
    }

    /// A subnet with these attributes.
    pub async fn subnet(&self, token: &str, network: &str, attrs: Value) -> String {
        let mut body = json!({"network_id": network});
        body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        if body.get("ip_version").is_none() {
            body["ip_version"] =
                if body["cidr"].as_str().unwrap().contains(':') { 6.into() } else { 4.into() };
        }
        text(&self.post("subnets", token, json!({"subnet": body})).await.made("subnet")["id"])
    }

    /// A network with the subnet 10.0.0.0/24: (network, subnet).
    pub async fn wired(&self, token: &str) -> (String, String) {
        let network = self.network(token).await;
        let subnet = self.subnet(token, &network, json!({"cidr": "10.0.0.0/24"})).await;
        (network, subnet)
    }

    /// A port with these attributes.
    pub async fn port(&self, token: &str, network: &str, attrs: Value) -> Value {
        let mut body = json!({"network_id": network});
        body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        self.post("ports", token, json!({"port": body})).await.made("port")
    }

    /// A router with a gateway on this network (if any).
    pub async fn router(&self, token: &str, external: Option<&str>) -> String {
        let info = external.map(|e| json!({"network_id": e}));
        let body = json!({"router": {"name": "r", "external_gateway_info": info}});
        text(&self.post("routers", token, body).await.made("router")["id"])
    }

    /// Joins a router to a subnet; the interface's port.
    pub async fn join(&self, token: &str, router: &str, subnet: &str) -> String {
        let path = format!("routers/{router}/add_router_interface");
        text(&self.put(&path, token, json!({"subnet_id": subnet})).await.expect(200)["port_id"])
    }

    /// A record.
    pub fn record<T: Record>(&self, id: &str) -> Option<T> {
        self.svc.store.read(|tx| tx.get::<T>(id)).map_err(|e: Abort| e).unwrap()
    }

    /// Every record of a kind.
    pub fn records<T: Record>(&self) -> Vec<T> {
        self.svc.store.read(|tx| tx.list_unfenced::<T>()).map_err(|e: Abort| e).unwrap()
    }

    /// The node does all it is told, and reports it; then the conductor does its part.
    pub async fn settle(&self) {
        for port in self.records::<Port>().into_iter().filter(|p| p.host.as_deref() == Some(NODE)) {
            self.port_is(&port, phase(port.deleted)).await;
        }
        for router in self.records::<R>().into_iter().filter(|r| r.host.as_deref() == Some(NODE)) {
            let status = RouterStatus {
                router: router.id.clone(),
                host: NODE.into(),
                generation: router.stamp.revision,
                phase: phase(router.deleted),
                error: None,
            };
            self.svc.store.put_record(&status).await.unwrap();
        }
        for network in self.records::<Network>().into_iter().filter(|n| n.hosts.contains(NODE)) {
            let status = NetworkStatus {
                network: network.id.clone(),
                host: NODE.into(),
                generation: network.stamp.revision,
                phase: phase(network.deleted),
                dhcp: true,
                error: None,
            };
            self.svc.store.put_record(&status).await.unwrap();
        }
        cairn_network::conductor::pass(&self.svc.store).await;
    }

    /// The node reports a port.
    pub async fn port_is(&self, port: &Port, phase: Phase) {
        let status = PortStatus {
            id: port.id.clone(),
            host: NODE.into(),
            generation: port.generation(),
            phase,
            up: phase == Phase::Ready,
            tap: None,
            error: None,
        };
        self.svc.store.put_record(&status).await.unwrap();
    }
}

fn phase(deleted: bool) -> Phase {
    if deleted { Phase::Gone } else { Phase::Ready }
}

/// A text in a body.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// The addresses of a shown port.
pub fn ips(port: &Value) -> Vec<String> {
    port["fixed_ips"].as_array().unwrap().iter().map(|f| text(&f["ip_address"])).collect()
}
