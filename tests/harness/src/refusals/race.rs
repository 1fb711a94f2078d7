//! Two servers that race for the last vCPU of the cloud: one has it, the other is told that there is none.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::client::{Client, Request};
use crate::tour::{names, step};

/// How many races.
const ROUNDS: usize = 2;
/// How long a server may take to be active, or gone.
const SERVER_MAX: Duration = Duration::from_secs(90);

/// Takes all vCPUs but one for the length of some races.
pub fn last_vcpu(client: &Client) -> Result<()> {
    let track = Track { client, token: client.token()? };
    let before = track.vcpus()?;
    let mut held = Vec::new();
    let flavor = track.flavor()?;
    let outcome = track.hold_all_but_one(&mut held).and_then(|()| {
        (0..ROUNDS).try_for_each(|round| {
            step(&format!("two servers race for the last vCPU ({})", round + 1), || track.race(&flavor))
        })
    });
    for consumer in held {
        track.call("DELETE", &format!("/placement/allocations/{consumer}")).answered(204)?;
    }
    track.call("DELETE", &format!("/compute/v2.1/flavors/{flavor}")).answered(202)?;
    outcome?;
    let after = track.vcpus()?;
    ensure!(after == before, "vCPUs before {before:?}, after {after:?}");
    Ok(())
}

/// The vCPUs of a node.
#[derive(Debug, PartialEq)]
struct Vcpus {
    provider: String,
    capacity: u64,
    used: u64,
    /// The most that one consumer may have.
    unit: u64,
}

struct Track<'a> {
    client: &'a Client,
    token: String,
}

impl Track<'_> {
    fn call(&self, method: &str, path: &str) -> Request {
        let request = self.client.request(method, path).token(&self.token);
        // Placement: consumers with generations. Compute: servers without a network.
        request
            .header("OpenStack-API-Version", "placement 1.28")
            .header("X-OpenStack-Nova-API-Version", "2.37")
    }

    fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path).answered(200)?.json()
    }

    fn vcpus(&self) -> Result<Vec<Vcpus>> {
        let list = self.get("/placement/resource_providers")?;
        let providers = list["resource_providers"].as_array().into_iter().flatten();
        providers.map(|p| self.vcpus_of(p["uuid"].as_str().unwrap_or_default())).collect()
    }

    fn vcpus_of(&self, provider: &str) -> Result<Vcpus> {
        let path = format!("/placement/resource_providers/{provider}");
        let inventory = &self.get(&format!("{path}/inventories"))?["inventories"]["VCPU"];
        let used = &self.get(&format!("{path}/usages"))?["usages"]["VCPU"];
        let number = |field: &str| inventory[field].as_u64().with_context(|| format!("no {field}"));
        let ratio = inventory["allocation_ratio"].as_f64().context("no allocation_ratio")?;
        Ok(Vcpus {
            provider: provider.to_owned(),
            capacity: ((number("total")? - number("reserved")?) as f64 * ratio) as u64,
            used: used.as_u64().context("no usage")?,
            unit: number("max_unit")?,
        })
    }

    /// A flavor of one vCPU that no other project sees; its id.
    fn flavor(&self) -> Result<String> {
        let wanted = json!({"flavor": {"name": "refused-flavor", "vcpus": 1, "ram": 64, "disk": 1,
            "os-flavor-access:is_public": false}});
        let made = self.call("POST", "/compute/v2.1/flavors").json(&wanted).answered(200)?.json()?;
        Ok(made["flavor"]["id"].as_str().context("the flavor has no id")?.to_owned())
    }

    /// Allocates every vCPU but one of the first node to consumers that are no servers.
    fn hold_all_but_one(&self, held: &mut Vec<String>) -> Result<()> {
        for (nth, node) in self.vcpus()?.into_iter().enumerate() {
            let mut free = node.capacity - node.used;
            let left = u64::from(nth == 0);
            ensure!(free >= left, "no vCPU is left to race for: {node:?}");
            while free > left {
                let amount = node.unit.min(free - left);
                held.push(self.hold(&node.provider, amount)?);
                free -= amount;
            }
        }
        Ok(())
    }

    fn hold(&self, provider: &str, vcpus: u64) -> Result<String> {
        let consumer = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        let wanted = json!({
            "allocations": {provider: {"resources": {"VCPU": vcpus}}},
            "consumer_generation": null, "project_id": "refusals", "user_id": "refusals",
        });
        self.call("PUT", &format!("/placement/allocations/{consumer}")).json(&wanted).answered(204)?;
        Ok(consumer)
    }

    /// One race, and its end: both deleted, their vCPU free again.
    fn race(&self, flavor: &str) -> Result<()> {
        let free = self.free()?;
        ensure!(free == 1, "{free} vCPUs are free, not one");
        let images = self.get(&format!("/image/v2/images?name={}", names::IMAGE))?;
        let image = images["images"][0]["id"].as_str().context("there is no image")?;
        let start = Barrier::new(2);
        let create = |name: &'static str| {
            let wanted = json!({"server": {"name": name, "imageRef": image, "flavorRef": flavor,
                "networks": "none"}});
            let request = self.call("POST", "/compute/v2.1/servers").json(&wanted);
            start.wait();
            let made = request.answered(202)?.json()?;
            let id = made["server"]["id"].as_str().context("the server has no id")?;
            Ok::<_, anyhow::Error>(format!("/compute/v2.1/servers/{id}"))
        };
        let made = thread::scope(|threads| {
            let racers = ["refused-a", "refused-b"].map(|name| threads.spawn(move || create(name)));
            racers.map(|racer| racer.join().unwrap_or_else(|_| bail!("a racer broke down")))
        });
        let made: Vec<String> =
            made.into_iter().flat_map(|r| r.inspect_err(|e| eprintln!("  {e:#}"))).collect();
        let outcome = self.judge(&made);
        for server in &made {
            self.call("DELETE", server).answered(204)?;
        }
        for server in &made {
            self.wait(|| Ok(self.call("GET", server).send()?.status == 404))?;
        }
        outcome?;
        self.wait(|| Ok(self.free()? == 1)).context("the vCPU is not free again")
    }

    fn free(&self) -> Result<u64> {
        let all = self.vcpus()?;
        for node in &all {
            ensure!(node.used <= node.capacity, "more than there is was given away: {node:?}");
        }
        Ok(all.iter().map(|n| n.capacity - n.used).sum())
    }

    /// One of the two gets as far as to run, the other is in error and says why.
    fn judge(&self, made: &[String]) -> Result<()> {
        ensure!(made.len() == 2, "not both were taken in");
        let mut won = None;
        for path in made {
            let server = &self.get(path)?["server"];
            if server["status"] != "ERROR" {
                ensure!(won.replace(path).is_none(), "both have the last vCPU");
                continue;
            }
            let why = server["fault"]["message"].as_str().unwrap_or_default();
            ensure!(why.contains("No valid host was found"), "the loser is told {why:?}");
        }
        let won = won.context("none has the last vCPU")?;
        ensure!(self.free()? == 0, "the winner holds nothing");
        self.wait(|| Ok(self.get(won)?["server"]["status"] == "ACTIVE"))?;
        ensure!(self.free()? == 0, "the winner holds nothing");
        Ok(())
    }

    fn wait(&self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let since = Instant::now();
        while !done()? {
            self.free()?;
            ensure!(since.elapsed() < SERVER_MAX, "not so after {SERVER_MAX:?}");
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}
