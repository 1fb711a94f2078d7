//! The suite's configuration, by what the cloud has: how many nodes, which extensions. What is not set here is as the
//! suite has it by itself.

use std::path::Path;

use anyhow::Result;
use image_builder::Paths;
use serde_json::Value;

use crate::client::Client;

/// The settings of one section.
type Settings = Vec<(&'static str, String)>;

/// The rung of what cinder's own plugin of the suite tests.
const CINDER: &str = "rung5-cinder";

/// The file's text for a rung. Needs the image, flavors and network that are made before.
pub fn of(client: &Client, work: &Path, rung: &str) -> Result<String> {
    let hosts = column(&client.json(&["hypervisor", "list"])?, "Hypervisor Hostname");
    let sections = [
        ("DEFAULT", log(work)),
        ("oslo_concurrency", vec![("lock_path", work.join("lock").display().to_string())]),
        ("auth", credentials(client)),
        ("identity", identity(client)),
        ("service_available", services()),
        ("compute", compute(client, &hosts)?),
        ("compute-feature-enabled", features(hosts.len(), rung)),
        ("image", set(&[("build_timeout", "300")])),
        ("network", network(client)?),
        ("network-feature-enabled", network_features(client)?),
        ("volume", volume()),
        ("volume-feature-enabled", volume_features()),
        ("enforce_scope", scope(rung)),
        ("validation", validation(hosts.len())),
        ("scenario", scenario()?),
    ];
    let line = |(name, value): &(&str, String)| format!("{name} = {value}\n");
    let lines = |settings: &Settings| settings.iter().map(line).collect::<String>();
    Ok(sections.iter().map(|(section, settings)| format!("[{section}]\n{}\n", lines(settings))).collect())
}

fn set(settings: &[(&'static str, &str)]) -> Settings {
    settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// One column of what the client lists.
fn column(list: &Value, name: &str) -> Vec<String> {
    let rows = list.as_array().into_iter().flatten();
    rows.filter_map(|row| row[name].as_str().map(str::to_owned)).collect()
}

fn log(work: &Path) -> Settings {
    set(&[("log_dir", &work.display().to_string()), ("log_file", "tempest.log"), ("use_stderr", "false")])
}

fn credentials(client: &Client) -> Settings {
    let access = client.access();
    set(&[
        ("use_dynamic_credentials", "true"),
        ("admin_username", access.get("OS_USERNAME")),
        ("admin_password", access.get("OS_PASSWORD")),
        ("admin_project_name", access.get("OS_PROJECT_NAME")),
        ("admin_domain_name", "Default"),
        ("tempest_roles", "member"),
    ])
}

fn identity(client: &Client) -> Settings {
    let access = client.access();
    set(&[
        ("uri_v3", access.get("OS_AUTH_URL")),
        ("region", "RegionOne"),
        ("v3_endpoint_type", "public"),
        ("ca_certificates_file", &access.ca().display().to_string()),
    ])
}

fn services() -> Settings {
    let there = ["nova", "neutron", "glance", "cinder"].map(|name| (name, "true"));
    set(&[&there[..], &[("swift", "false"), ("horizon", "false")]].concat())
}

fn compute(client: &Client, hosts: &[String]) -> Result<Settings> {
    let image = client.field(&["image", "show", "conf-image"], "id")?;
    let mut settings = set(&[
        ("image_ref", &image),
        ("image_ref_alt", &image),
        ("flavor_ref", &client.field(&["flavor", "show", "conf.nano"], "id")?),
        ("flavor_ref_alt", &client.field(&["flavor", "show", "conf.micro"], "id")?),
        ("build_timeout", "300"),
        ("hypervisor_type", "QEMU"),
        ("min_compute_nodes", &hosts.len().max(1).to_string()),
    ]);
    if let [from, to, ..] = hosts {
        // Without a version the suite leaves out what came with a later one.
        let moving =
            [("max_microversion", "latest"), ("migration_source_host", from), ("migration_dest_host", to)];
        settings.extend(set(&moving));
    }
    Ok(settings)
}

/// What of compute is there, with so many nodes.
fn features(nodes: usize, rung: &str) -> Settings {
    let many = ["cold_migration", "live_migration", "resize", "volume_backed_live_migration"];
    let moving = many.map(|feature| (feature, if nodes > 1 { "true" } else { "false" }));
    let off = ["vnc_console", "shelve", "shelve_migrate", "swap_volume"];
    let off = off.map(|feature| (feature, "false"));
    // Root disks are volumes: there is nothing to copy with a guest.
    let more = [("block_migration_for_live_migration", "false"), ("scheduler_enabled_filters", "all")];
    // Volumes may be meant for several servers, which block storage alone knows yet: no server shares one.
    let shared = [("volume_multiattach", if rung == "rung3-volume" { "true" } else { "false" })];
    set(&[&moving[..], &off, &more, &shared].concat())
}

fn volume() -> Settings {
    set(&[
        ("catalog_type", "block-storage"),
        ("volume_size", "1"),
        // Without a version the suite leaves out what came with a later one.
        ("max_microversion", "latest"),
        ("vendor_name", "Cairn"),
        ("storage_protocol", "vhost-user-blk"),
        ("backend_names", "cairn,cairn-single"),
        ("backup_driver", "posix"),
        ("disk_format", "raw"),
        // A volume that is managed no more is called by its id still.
        ("manage_volume_ref", "source-id,%s"),
        ("manage_snapshot_ref", "source-id,%s"),
    ])
}

/// What of block storage is there. The last two the plugin asks for.
fn volume_features() -> Settings {
    let there = [
        "multi_backend",
        "backup",
        "manage_volume",
        "manage_snapshot",
        "extend_attached_volume",
        "extend_attached_encrypted_volume",
        "volume_revert",
        "concurrency_tests",
    ];
    set(&there.map(|feature| (feature, "true")))
}

/// The plugin's tests of what each role may do are left out unless a service is said to heed roles' scopes. The suite's own
/// tests ask with other users then, so that is said to the plugin alone.
fn scope(rung: &str) -> Settings {
    set(&[("cinder", if rung == CINDER { "true" } else { "false" })])
}

fn network(client: &Client) -> Result<Settings> {
    Ok(set(&[
        ("public_network_id", &client.field(&["network", "show", "conf-public"], "id")?),
        ("floating_network_name", "conf-public"),
        ("project_network_cidr", "10.100.0.0/16"),
        ("project_network_v6_cidr", "2001:db8::/48"),
    ]))
}

fn network_features(client: &Client) -> Result<Settings> {
    let extensions = column(&client.json(&["extension", "list", "--network"])?, "Alias").join(",");
    Ok(set(&[("api_extensions", &extensions), ("ipv6", "true"), ("port_security", "true")]))
}

/// Whether the suite logs in to guests, and how: only where guests move, since it takes long.
fn validation(nodes: usize) -> Settings {
    if nodes < 2 {
        return set(&[("run_validation", "false")]);
    }
    set(&[
        ("run_validation", "true"),
        ("image_ssh_user", "root"),
        ("image_alt_ssh_user", "root"),
        ("ssh_timeout", "300"),
        ("connect_timeout", "60"),
        ("ping_timeout", "120"),
        // The guest's shell is busybox's.
        ("ssh_shell_prologue", "set -eu; PATH=$$PATH:/sbin:/usr/sbin;"),
    ])
}

fn scenario() -> Result<Settings> {
    let image = Paths::find()?.guests().join("tiny.qcow2").display().to_string();
    Ok(set(&[("img_file", &image), ("img_disk_format", "qcow2"), ("dhcp_client", "udhcpc")]))
}
