//! Password hashing: argon2id, off the threads that serve requests, few at a time.
//!
//! Passwords are never logged or kept.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use cairn_gateway::ApiError;
use tokio::sync::oneshot;

/// Memory in KiB, passes and lanes: OWASP's first choice, about 18 ms.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// How many hashes are computed at once, and how many may wait.
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 128;
/// The longest password, in bytes.
const LENGTH_MAX: usize = 4096;
/// A hash of the same cost that no password has, checked for users that do not exist.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Y2Fpcm4tbm8tc3VjaC11c2Vy$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A hash to be computed.
type Job = Box<dyn FnOnce() + Send>;

/// The one place where passwords are hashed: a few threads of its own. (On the runtime's many blocking threads, the
/// allocator would keep the 19 MiB of a hash once for each of them.)
pub struct Passwords {
    queue: SyncSender<Job>,
}

impl Default for Passwords {
    fn default() -> Passwords {
        let (queue, jobs) = mpsc::sync_channel::<Job>(WAITING_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..AT_ONCE {
            let jobs = jobs.clone();
            let spawned =
                std::thread::Builder::new().name(format!("password-{n}")).spawn(move || work(&jobs));
            if let Err(e) = spawned {
                tracing::error!(error = %e, "no thread to hash passwords");
            }
        }
        Passwords { queue }
    }
}

/// Does jobs until their sender is gone.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

impl Passwords {
    /// The PHC string of a new password.
    pub async fn hash(&self, password: &str) -> Result<String, ApiError> {
        if password.len() > LENGTH_MAX {
            return Err(ApiError::bad_request(format!("A password may have {LENGTH_MAX} bytes.")));
        }
        let password = password.to_owned();
        self.run(move || hash(&password)).await?
    }

    /// Whether the password is the one of this hash. Without a hash (no such user, no password) it takes as long
    /// and is false.
    pub async fn verify(&self, password: &str, phc: Option<&str>) -> Result<bool, ApiError> {
        if password.len() > LENGTH_MAX {
            return Ok(false);
        }
        let password = password.to_owned();
        let (phc, exists) = (phc.unwrap_or(NOBODY).to_owned(), phc.is_some());
        Ok(self.run(move || matches(&password, &phc)).await? && exists)
    }

    async fn run<T: Send + 'static>(&self, hash: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            // Nothing is computed for a client that has left.
            if !reply.is_closed() {
                let _ = reply.send(hash());
            }
        };
        let busy = || ApiError::unavailable("Too many authentications at once; try again.");
        self.queue.try_send(Box::new(job)).map_err(|_| busy())?;
        answer.await.map_err(ApiError::internal)
    }
}

/// The PHC string of a password.
fn hash(password: &str) -> Result<String, ApiError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(ApiError::internal)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = argon2.hash_password(password.as_bytes()).map_err(ApiError::internal)?;
    Ok(hash.to_string())
}

fn matches(password: &str, phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else {
        tracing::error!("a stored password hash is damaged");
        return false;
    };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// Whether this is a PHC string that [`Passwords::verify`] can check.
pub fn is_phc(text: &str) -> bool {
    PasswordHash::new(text).is_ok() && text.starts_with("$argon2id$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_real_user_is_accepted() {
        let passwords = Passwords::default();
        let phc = passwords.hash("open sesame").await.unwrap();
        assert!(is_phc(&phc) && is_phc(NOBODY) && !is_phc("sesame"));
        assert!(passwords.verify("open sesame", Some(&phc)).await.unwrap());
        assert!(!passwords.verify("open", Some(&phc)).await.unwrap());
        assert!(!passwords.verify("open sesame", None).await.unwrap());
        assert!(!passwords.verify("open sesame", Some("damaged")).await.unwrap());
    }
}
