//! Security groups and rules.

use serde_json::{Value, json};

use crate::support::{Cloud, text};

async fn group(cloud: &Cloud) -> String {
    let body = json!({"security_group": {"name": "web"}});
    text(&cloud.post("security-groups", "member:p", body).await.made("security_group")["id"])
}

async fn rule(cloud: &Cloud, group: &str, attrs: Value) -> crate::support::Answer {
    let mut body = json!({"security_group_id": group, "direction": "ingress"});
    body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
    cloud.post("security-group-rules", "member:p", json!({"security_group_rule": body})).await
}

#[tokio::test]
async fn each_project_has_a_default_group() {
    let cloud = Cloud::new();
    let list = cloud.get("security-groups", "reader:p").await.expect(200);
    let default = &list["security_groups"][0];
    assert_eq!(default["name"], "default");
    assert_eq!(default["security_group_rules"].as_array().unwrap().len(), 4);
    assert_eq!(cloud.ids("security-groups", "member:p").await.len(), 1, "made once");
    let path = format!("security-groups/{}", text(&default["id"]));
    cloud.delete(&path, "member:p").await.refused(409, "SecurityGroupCannotRemoveDefault");
    let rename = json!({"security_group": {"name": "x"}});
    cloud.put(&path, "member:p", rename).await.refused(409, "SecurityGroupCannotUpdateDefault");
    let found = cloud.ids("security-groups?name=default&project_id=p", "admin:a").await;
    assert_eq!(found, [text(&default["id"])]);
    cloud.delete(&path, "admin:a").await.expect(204);
    assert!(cloud.ids("security-group-rules?project_id=p", "admin:a").await.is_empty());
}

#[tokio::test]
async fn a_group_begins_with_egress_and_ends_with_its_rules() {
    let cloud = Cloud::new();
    let id = group(&cloud).await;
    let path = format!("security-groups/{id}");
    let shown = cloud.get(&path, "member:p").await.expect(200)["security_group"].take();
    let rules = shown["security_group_rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2);
    assert!(rules.iter().all(|r| r["direction"] == "egress"));
    let default = json!({"security_group": {"name": "default"}});
    cloud
        .post("security-groups", "member:p", default.clone())
        .await
        .refused(409, "SecurityGroupDefaultAlreadyExists");
    cloud.put(&path, "member:p", default).await.refused(409, "SecurityGroupDefaultAlreadyExists");
    let made = rule(&cloud, &id, json!({"protocol": "tcp"})).await.made("security_group_rule");
    cloud.delete(&path, "member:p").await.expect(204);
    cloud.get(&format!("security-group-rules/{}", text(&made["id"])), "member:p").await.expect(404);
}

#[tokio::test]
async fn a_group_in_use_stays_and_one_that_is_named_takes_the_naming_rules() {
    let cloud = Cloud::new();
    let (network, _) = cloud.wired("member:p").await;
    let (used, named) = (group(&cloud).await, group(&cloud).await);
    let port = cloud.port("member:p", &network, json!({"security_groups": [used]})).await;
    cloud.delete(&format!("security-groups/{used}"), "member:p").await.refused(409, "SecurityGroupInUse");
    let made = rule(&cloud, &used, json!({"remote_group_id": named})).await.made("security_group_rule");
    cloud.delete(&format!("security-groups/{named}"), "member:p").await.expect(204);
    cloud.get(&format!("security-group-rules/{}", text(&made["id"])), "member:p").await.expect(404);
    cloud.delete(&format!("ports/{}", text(&port["id"])), "member:p").await.expect(204);
    cloud.delete(&format!("security-groups/{used}"), "member:p").await.expect(204);
}

#[tokio::test]
async fn rules_say_what_was_asked() {
    let cloud = Cloud::new();
    let id = group(&cloud).await;
    let attrs = json!({"protocol": "tcp", "port_range_min": 76, "port_range_max": 77, "ethertype": "IPv4",
                       "remote_ip_prefix": "10.1.2.3/16"});
    let made = rule(&cloud, &id, attrs).await.made("security_group_rule");
    assert_eq!((&made["protocol"], &made["port_range_max"]), (&json!("tcp"), &json!(77)));
    assert_eq!(made["remote_ip_prefix"], "10.1.0.0/16");
    assert_eq!(
        rule(&cloud, &id, json!({"protocol": 17})).await.made("security_group_rule")["protocol"],
        "17"
    );
    rule(&cloud, &id, json!({"protocol": "udp"})).await.refused(409, "SecurityGroupRuleExists");
    let icmp =
        json!({"protocol": "ipv6-icmp", "ethertype": "IPv6", "port_range_min": 11, "port_range_max": null});
    assert_eq!(rule(&cloud, &id, icmp).await.made("security_group_rule")["port_range_max"], Value::Null);
}

#[tokio::test]
async fn rules_that_cannot_be() {
    let cloud = Cloud::new();
    let (id, other) = (group(&cloud).await, group(&cloud).await);
    for (attrs, status) in [
        (json!({"protocol": "bad_protocol_name"}), 400),
        (json!({"ethertype": "bad"}), 400),
        (json!({"remote_ip_prefix": "256"}), 400),
        (json!({"remote_ip_prefix": "fd00::/64"}), 400),
        (json!({"port_range_min": 1, "port_range_max": 2}), 400),
        (json!({"protocol": "tcp", "port_range_min": -16, "port_range_max": 80}), 400),
        (json!({"remote_group_id": "none"}), 404),
        (json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": other}), 400),
        (json!({"direction": "sideways"}), 400),
    ] {
        let answer = rule(&cloud, &id, attrs.clone()).await;
        assert_eq!(answer.status, status, "{attrs} {}", answer.body);
    }
    rule(&cloud, "none", json!({})).await.refused(404, "SecurityGroupNotFound");
}
