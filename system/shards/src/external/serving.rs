//! Serving volumes that other systems keep, and saying how they are: the sockets of guests, and the records about them.
//!
//! It writes [`VolumeStatus`] and [`Prepared`] records, for volumes that this node leads, or that come here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cairn_state::{StoreError, StoreExt};
use tokio::task::spawn_blocking;

use super::agent::{External, Served};
use super::driver::Opened;
use super::plan::Seen;
use crate::blk::Export;
use crate::media::{Media, Switch};
use crate::model::{Phase, Prepared, VolumeSpec, VolumeStatus};

/// How long a pass waits for the requests under way when it takes a volume from its user.
const UNEXPORT_PATIENCE: Duration = Duration::from_secs(3);

impl External {
    /// Serves what was opened, if it is still wanted so.
    pub(super) async fn opened(
        &mut self,
        spec: &VolumeSpec,
        epoch: u64,
        opened: Arc<dyn Opened>,
    ) -> io::Result<()> {
        let wanted = spec.export.as_ref().is_some_and(|e| e.node == self.node && e.epoch == epoch);
        if !wanted || spec.deleted {
            return Ok(());
        }
        match self.exports.get_mut(&spec.id).filter(|s| s.export.is_serving()) {
            Some(served) => {
                let (switch, media) = (served.switch.clone(), opened.media());
                served.opened = Some(opened);
                served.export.set_epoch(epoch);
                spawn_blocking(move || switch.set(media)).await.map_err(io::Error::other)
            }
            None => self.serve(spec, epoch, opened.media(), Some(opened)).await,
        }
    }

    pub(super) async fn serve(
        &mut self,
        spec: &VolumeSpec,
        epoch: u64,
        media: Arc<dyn Media>,
        opened: Option<Arc<dyn Opened>>,
    ) -> io::Result<()> {
        self.unexport(&spec.id).await?; // one whose thread died
        let (serve, volume, switch) = (self.serve.clone(), spec.id.clone(), Arc::new(Switch::new(media)));
        switch.limit(&spec.limits);
        let of = switch.clone();
        let export = spawn_blocking(move || {
            serve.prepare()?;
            Export::start(&volume, epoch, of, &serve)
        });
        let export = export.await.map_err(io::Error::other)??;
        self.exports.insert(spec.id.clone(), Served { export, switch, opened });
        Ok(())
    }

    pub(super) async fn unexport(&mut self, id: &str) -> io::Result<()> {
        let Some(mut served) = self.exports.remove(id) else { return Ok(()) };
        let stopped = spawn_blocking(move || (served.export.stop(UNEXPORT_PATIENCE), served)).await;
        match stopped.map_err(io::Error::other)? {
            (true, _) => Ok(()),
            (false, served) => {
                self.exports.insert(id.to_owned(), served);
                Err(io::Error::new(io::ErrorKind::TimedOut, "a request of its last user is still under way"))
            }
        }
    }

    pub(super) async fn tell(
        &mut self,
        spec: &VolumeSpec,
        seen: &Seen,
        phase: Phase,
        blocked: Option<String>,
    ) -> Result<(), StoreError> {
        if !self.live() {
            return Ok(());
        }
        self.tell_prepared(spec).await?;
        if spec.lead() != self.node {
            return Ok(());
        }
        let gone = self.reported.get(&spec.id).is_some_and(|s| s.phase == Phase::Gone) && spec.deleted;
        let phase = if gone { Phase::Gone } else { phase };
        let known = seen.status.as_ref();
        let had = known.filter(|s| s.phase != Phase::Gone || spec.deleted).and_then(|s| s.disk.clone());
        let stored = seen.stored.filter(|_| phase != Phase::Gone);
        let export =
            self.exports.get(&spec.id).map(|s| &s.export).filter(|e| e.is_serving() && e.epoch() > 0);
        let status = VolumeStatus {
            phase,
            error: blocked.filter(|_| phase != Phase::Gone),
            socket: export.map(|e| e.socket().display().to_string()),
            epoch: export.map_or(0, Export::epoch),
            size: stored.unwrap_or(0),
            disk: stored.and(spec.backend.clone()).or(had),
            ..VolumeStatus::new(spec, phase)
        };
        if self.mirrors.statuses.get(&spec.id).as_deref() != Some(&status)
            && self.reported.get(&spec.id).is_none_or(|s| *s != status || gone)
        {
            self.store.put_record(&status).await?;
        }
        self.reported.insert(spec.id.clone(), status);
        Ok(())
    }

    async fn tell_prepared(&mut self, spec: &VolumeSpec) -> Result<(), StoreError> {
        let key = (spec.id.clone(), spec.generation);
        let served = self.exports.get(&spec.id).filter(|s| s.export.is_serving());
        match served.filter(|_| spec.moving.as_ref() == Some(&self.node)) {
            Some(served) if !self.told_prepared.contains(&key) => {
                let (volume, node) = (spec.id.clone(), self.node.clone());
                let socket = served.export.socket().display().to_string();
                let prepared = Prepared { volume, node, generation: spec.generation, socket };
                self.store.put_record(&prepared).await?;
                self.told_prepared.insert(key);
            }
            None if self.told_prepared.iter().any(|(id, _)| *id == spec.id) => {
                self.store.delete_record::<Prepared>(&format!("{}/{}", spec.id, self.node)).await?;
                self.told_prepared.retain(|(id, _)| *id != spec.id);
            }
            _ => {}
        }
        Ok(())
    }
}
