//! What a front-end says on its connection (QEMU's vhost-user protocol), carried out on the device.
//!
//! The library reads and checks the messages; what they name is checked here. An error ends the connection, or is the
//! answer where the front-end asked for one.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::config::{self, QUEUE_SIZE_MAX, QUEUES};
use super::device::{self, Device, Queue};
use super::inflight::Inflight;
use super::memory::{DirtyLog, Memory, REGIONS_MAX};

/// One connection's side of the protocol.
pub struct Handler {
    device: Arc<Device>,
    owned: bool,
    features: u64,
}

impl Handler {
    /// For a device that nobody has talked to yet.
    pub fn new(device: Arc<Device>) -> Handler {
        Handler { device, owned: false, features: 0 }
    }

    fn queue(&self, index: u32) -> Result<&Arc<Queue>> {
        self.device.queue(index as usize).ok_or(Error::InvalidParam)
    }

    fn stop_all(&self) {
        self.device.end();
    }
}

fn refused(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::ReqHandlerError(io::Error::other(e))
}

/// Refuses what was not offered.
fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("not supported"))
}

impl VhostUserBackendReqHandlerMut for Handler {
    fn set_owner(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.owned, true) {
            return Err(Error::InvalidOperation("already claimed"));
        }
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.owned = false;
        self.features = 0;
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        self.features = 0;
        self.device.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(config::features(self.device.volume.read_only()))
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !config::features(self.device.volume.read_only()) != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        self.device.set_features(features);
        // Who cannot enable rings has them enabled.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            for index in 0..QUEUES as u32 {
                let queue = self.queue(index)?;
                queue.ring().enabled = true;
                self.device.start(queue).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.device.set_memory(Memory::of_table(table, files).map_err(refused)?);
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        if num == 0 || num as usize > QUEUE_SIZE_MAX {
            return Err(Error::InvalidParam);
        }
        self.queue(index)?.ring().set_size(num as u16).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let memory = self.device.memory();
        let at = |user| memory.guest_address(user).ok_or(Error::InvalidParam);
        let (table, available, used) = (at(descriptor)?, at(available)?, at(used)?);
        let mut ring = self.queue(index)?.ring();
        ring.set_addresses(memory.map(), table, available, used).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.queue(index)?.ring().set_base(base as u16);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let queue = self.queue(index)?;
        let next = self.device.stop(queue).map_err(refused)?;
        let mut ring = queue.ring();
        (ring.kick, ring.call) = (None, None);
        Ok(VhostUserVringState::new(index, next.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let queue = self.queue(index.into())?;
        let file = device::event(file).map_err(refused)?;
        // A worker waits for the one it was started with.
        if queue.ring().running {
            self.device.stop(queue).map_err(refused)?;
        }
        queue.ring().kick = Some(Arc::new(file));
        self.device.start(queue).map_err(refused)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        // Without one, the guest looks for completions by itself.
        self.queue(index.into())?.ring().call = file;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        // There is no error of a ring that its front-end could do anything about.
        self.queue(index.into()).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(config::protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        match features & !config::protocol_features().bits() {
            0 => Ok(()),
            _ => Err(Error::InvalidParam),
        }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let needed = VhostUserVirtioFeatures::PROTOCOL_FEATURES;
        if self.features & needed.bits() == 0 {
            return Err(Error::InactiveFeature(needed));
        }
        let queue = self.queue(index)?;
        queue.ring().enabled = enable;
        match enable {
            true => self.device.start(queue).map_err(refused),
            false if queue.ring().running => self.device.stop(queue).map(drop).map_err(refused),
            false => Ok(()),
        }
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(self.device.config(offset, size))
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.device.set_config(offset, bytes).map_err(Error::ReqHandlerError)
    }

    fn set_gpu_socket(&mut self, _socket: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Inflight::create(wanted).map_err(Error::ReqHandlerError)
    }

    fn set_inflight_fd(&mut self, kept: &VhostUserInflight, file: File) -> Result<()> {
        let inflight = Inflight::open(kept, file).map_err(Error::ReqHandlerError)?;
        self.device.set_inflight(&Arc::new(inflight));
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.device.set_memory(self.device.memory().with(region, file).map_err(refused)?);
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.device.set_memory(self.device.memory().without(region).map_err(refused)?);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        self.device.set_log(DirtyLog::open(log, file).map_err(Error::ReqHandlerError)?);
        Ok(())
    }
}
