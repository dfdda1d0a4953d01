//! A file whose operations fail on request, for tests of failed and torn writes.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

/// Size of a block of the simulated disk.
const BLOCK: u64 = 4096;

/// A failure of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write stores half of its data and fails.
    ShortWrite,
    /// A sync fails.
    SyncFails,
    /// A write fails because the disk is full.
    NoSpace,
}

/// The fault that is due. All operations of its kind fail from then on, until [`clear`](Self::clear).
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<Option<(Fault, u64)>>,
    /// A disk with little space, if it is simulated.
    disk: Mutex<Option<Disk>>,
}

/// The free space of a simulated disk, and the blocks that it holds.
#[derive(Debug)]
struct Disk {
    free: u64,
    /// All blocks below this number were there before.
    present: u64,
    written: HashSet<u64>,
}

impl Faults {
    /// Lets operations fail after a number of successful ones of the same kind (writes or syncs).
    pub fn inject(&self, fault: Fault, after: u64) {
        *self.plan.lock() = Some((fault, after));
    }

    /// Ends the fault.
    pub fn clear(&self) {
        *self.plan.lock() = None;
    }

    /// Simulates a disk on which new blocks of the file `store` and the reserve can take `free` bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn limit_disk(&self, store: &Path, free: u64) -> io::Result<()> {
        let present = store.metadata()?.len() / BLOCK;
        *self.disk.lock() = Some(Disk { free, present, written: HashSet::new() });
        Ok(())
    }

    /// Takes space from the simulated disk.
    pub(super) fn take_space(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let Some(disk) = disk.as_mut() else { return Ok(()) };
        disk.free = disk.free.checked_sub(bytes).ok_or(ErrorKind::StorageFull)?;
        Ok(())
    }

    /// Gives space back to the simulated disk.
    pub fn free_space(&self, bytes: u64) {
        if let Some(disk) = self.disk.lock().as_mut() {
            disk.free += bytes;
        }
    }

    /// Takes space for the blocks of a write that are new.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let Some(disk) = disk.as_mut() else { return Ok(()) };
        for block in offset / BLOCK..(offset + length).div_ceil(BLOCK) {
            if block >= disk.present && !disk.written.contains(&block) {
                disk.free = disk.free.checked_sub(BLOCK).ok_or(ErrorKind::StorageFull)?;
                disk.written.insert(block);
            }
        }
        Ok(())
    }

    /// Returns the fault of this operation, if it is due.
    fn take(&self, is_sync: bool) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let (fault, left) = plan.as_mut().filter(|(fault, _)| (*fault == Fault::SyncFails) == is_sync)?;
        let Some(next) = left.checked_sub(1) else { return Some(*fault) };
        *left = next;
        None
    }
}

/// A file with faults.
#[derive(Debug)]
pub(super) struct FaultyFile {
    pub(super) file: File,
    pub(super) faults: Arc<Faults>,
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.faults.take(false) {
            Some(Fault::NoSpace) if len > self.len()? => Err(ErrorKind::StorageFull.into()),
            _ => self.file.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.faults.take(true) {
            Some(_) => Err(io::Error::other("injected: input/output error")),
            None => self.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.allocate(offset, data.len() as u64)?;
        match self.faults.take(false) {
            None => self.file.write_all_at(data, offset),
            Some(Fault::ShortWrite) => {
                let half = data.get(..data.len() / 2).unwrap_or_default();
                self.file.write_all_at(half, offset)?;
                Err(io::Error::other("injected: input/output error"))
            }
            Some(_) => Err(ErrorKind::StorageFull.into()),
        }
    }
}
