//! `qemu-img`, confined: it sees no network, has bounds on memory, time and file size, an empty environment, and
//! dies with whoever asked for it.
//!
//! It opens files only by absolute paths in staging, always with the format named. What it prints is parsed, never
//! trusted further than a number.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::DataError;
use crate::sys::{self, Confinement};

/// How images are checked and converted.
#[derive(Debug, Clone)]
pub struct ConvertLimits {
    /// The program.
    pub program: PathBuf,
    /// How many run at once.
    pub concurrency: usize,
    /// Address space of each, in bytes.
    pub memory: u64,
    /// Processor time of each, in seconds.
    pub cpu_seconds: u64,
    /// How long each may take.
    pub timeout: Duration,
}

impl Default for ConvertLimits {
    fn default() -> ConvertLimits {
        ConvertLimits {
            program: "/usr/bin/qemu-img".into(),
            concurrency: 2,
            memory: 2 << 30,
            cpu_seconds: 1800,
            timeout: Duration::from_secs(3600),
        }
    }
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
    format: String,
    #[serde(rename = "backing-filename")]
    backing: Option<String>,
    #[serde(default)]
    encrypted: bool,
}

impl ConvertLimits {
    /// Checks a qcow2 file that passed our own look at its header; answers its virtual size in bytes.
    pub async fn check(&self, image: &Path, cap: u64) -> Result<u64, DataError> {
        let output = self.run(&["info", "--output=json", "-f", "qcow2"], &[image], 0).await?;
        if !output.status.success() {
            return Err(DataError::refused(said("the image cannot be read", &output, image)));
        }
        let info: Info = serde_json::from_slice(&output.stdout)
            .map_err(|e| DataError::refused(format!("the image cannot be understood: {e}")))?;
        if info.format != "qcow2" || info.backing.is_some() || info.encrypted {
            return Err(DataError::refused("the image is not a plain qcow2 image"));
        }
        if info.virtual_size > cap {
            return Err(DataError::refused(format!("its virtual size is over the limit of {cap} bytes")));
        }
        let output = self.run(&["check", "--output=json", "-f", "qcow2"], &[image], 0).await?;
        match output.status.code() {
            // 3: clusters that nothing uses, which harms nobody.
            Some(0 | 3) => Ok(info.virtual_size),
            _ => Err(DataError::refused(said("the image is corrupt", &output, image))),
        }
    }

    /// Writes what a checked qcow2 file describes into a new raw file, sparse.
    pub async fn to_raw(&self, image: &Path, raw: &Path, virtual_size: u64) -> Result<(), DataError> {
        let arguments = ["convert", "-f", "qcow2", "-O", "raw", "-t", "writeback", "-W"];
        let output = self.run(&arguments, &[image, raw], virtual_size).await?;
        if output.status.success() {
            return Ok(());
        }
        if String::from_utf8_lossy(&output.stderr).contains("No space left on device") {
            return Err(DataError::full());
        }
        Err(DataError::refused(said("the image cannot be converted", &output, image)))
    }

    async fn run(&self, arguments: &[&str], files: &[&Path], file_bytes: u64) -> Result<Output, DataError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(files).env_clear().env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let (memory, cpu_seconds) = (self.memory, self.cpu_seconds);
        sys::confine(command.as_std_mut(), Confinement::Apart { memory, cpu_seconds, file_bytes });
        let child =
            command.spawn().map_err(|e| failed(format!("qemu-img could not be confined and run: {e}")))?;
        match tokio::time::timeout(self.timeout, child.wait_with_output()).await {
            Ok(output) => output.map_err(|e| failed(format!("qemu-img was lost: {e}"))),
            Err(_) => Err(DataError::refused("the image took too long to check or convert")),
        }
    }
}

fn failed(text: String) -> DataError {
    DataError::new(http::StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// What a program said last, without the names of our files.
fn said(what: &str, output: &Output, image: &Path) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no reason was given");
    let line = line.replace(&*image.to_string_lossy(), "the image");
    format!("{what}: {}", line.trim_start_matches("qemu-img: ").chars().take(300).collect::<String>())
}
