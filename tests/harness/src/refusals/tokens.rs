//! Tokens that are none, are none any more, or end with what they were made from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use image_builder::exec;
use serde_json::{Value, json};

use crate::client::Client;

/// How long the application credential of the test is good for.
const LIFE: Duration = Duration::from_secs(12);
/// One call per service that any user may make.
const SERVICES: [&str; 5] = [
    "/identity/v3/auth/projects",
    "/compute/v2.1/servers",
    "/network/v2.0/networks",
    "/volume/v3/volumes",
    "/image/v2/images",
];

/// A made-up token, and a real one that was revoked.
pub fn made_up_and_revoked(client: &Client) -> Result<()> {
    for path in SERVICES {
        client.request("GET", path).token("not-a-token").answered(401)?;
    }
    let token = client.token()?;
    client.request("GET", SERVICES[1]).token(&token).answered(200)?;
    client.run(&["token", "revoke", &token])?;
    client.request("GET", SERVICES[1]).token(&token).answered(401)?;
    Ok(())
}

/// A token from an application credential with an end: it works, and ends with the credential, for every service,
/// although each has just seen it and keeps what it knows of it.
pub fn expired(client: &Client) -> Result<()> {
    let issued = client.json(&["token", "issue"])?;
    let text = |field: &str| issued[field].as_str().with_context(|| format!("the token has no {field}"));
    let (admin, user) = (text("id")?, text("user_id")?);
    let (list, until) = (format!("/identity/v3/users/{user}/application_credentials"), now()? + LIFE);
    let wanted = json!({"application_credential": {"name": "refused-credential", "expires_at": utc(until)?}});
    let made = client.request("POST", &list).token(admin).json(&wanted).answered(201)?.json()?;
    let credential = &made["application_credential"];
    let outcome = ends(client, admin, credential, until);
    let one = format!("{list}/{}", credential["id"].as_str().unwrap_or_default());
    client.request("DELETE", &one).token(admin).answered(204)?;
    outcome
}

fn ends(client: &Client, admin: &str, credential: &Value, until: Duration) -> Result<()> {
    let identity = json!({"methods": ["application_credential"],
        "application_credential": {"id": credential["id"], "secret": credential["secret"]}});
    let login =
        client.request("POST", "/identity/v3/auth/tokens").json(&json!({"auth": {"identity": identity}}));
    let issued = login.answered(201)?;
    let (token, body) = (issued.header("x-subject-token")?, issued.json()?);
    let told = body["token"]["expires_at"].as_str().unwrap_or_default();
    ensure!(told <= utc(until)?.as_str(), "the token is said to end at {told}, after its credential");
    let look = |as_: &str| {
        client.request("GET", "/identity/v3/auth/tokens").token(as_).header("X-Subject-Token", token)
    };
    // Twice: the second is answered from what is kept of the first.
    for path in SERVICES.iter().chain(&SERVICES) {
        client.request("GET", path).token(token).answered(200)?;
    }
    look(admin).answered(200)?;
    std::thread::sleep(until.saturating_sub(now()?));
    for path in SERVICES {
        client.request("GET", path).token(token).answered(401)?;
    }
    look(admin).answered(404)?;
    look(token).answered(401)?;
    login.answered(401)?;
    Ok(())
}

/// Time since the epoch.
fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// A time as the API shows it, in whole seconds rounded down.
fn utc(at: Duration) -> Result<String> {
    let date = format!("--date=@{}", at.as_secs());
    let shown = exec::output(&mut exec::command("date", ["--utc", &date, "+%Y-%m-%dT%H:%M:%S.000000Z"]))?;
    Ok(shown.trim().to_owned())
}
