//! Typed access to the maps: the ledger as the kernel holds it, what the programs count, and the
//! orders they take.

use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use ucr_common::{
    control::{Control, Lease, SHAPES, counter},
    paths::BindPaths,
    record::Record,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    TracerError,
    object::{Object, open_pin},
};

type Bytes<T> = <T as Shape>::Bytes;

/// A shape as aya wants it: an array of bytes.
trait Shape {
    type Bytes;
}

macro_rules! shapes {
    ($($shape:ty),*) => {
        $(impl Shape for $shape {
            type Bytes = [u8; size_of::<$shape>()];
        })*
    };
}
shapes!(Record, BindPaths, Control, Lease);

/// The maps that last.
pub struct Store {
    ledger: HashMap<MapData, u64, Bytes<Record>>,
    paths: HashMap<MapData, u64, Bytes<BindPaths>>,
    control: Array<MapData, Bytes<Control>>,
    lease: Array<MapData, Bytes<Lease>>,
    counters: PerCpuArray<MapData, u64>,
    sequence: PerCpuArray<MapData, u64>,
}

/// Sums over all CPUs, by `ucr_common::control::counter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; counter::MEANINGS.len()]);

impl Counters {
    /// One of them.
    #[must_use]
    pub fn get(&self, counter: u32) -> u64 {
        usize::try_from(counter).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }

    /// All with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        counter::MEANINGS.into_iter().map(|(name, _)| name).zip(self.0)
    }
}

impl Store {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// A pin that is missing or is not what it should be.
    pub fn open(directory: &Path) -> Result<Self, TracerError> {
        Self::build(|name| {
            Map::from_map_data(open_pin(directory, name)?)
                .map_err(|source| TracerError::Map { map: name, source })
        })
    }

    /// Takes the maps of an object that is loaded in this process.
    ///
    /// # Errors
    /// An object that is not ours.
    pub fn of(object: &mut Object) -> Result<Self, TracerError> {
        Self::build(|name| object.take_map(name))
    }

    fn build(
        mut map: impl FnMut(&'static str) -> Result<Map, TracerError>,
    ) -> Result<Self, TracerError> {
        Ok(Self {
            ledger: typed("LEDGER", map("LEDGER")?)?,
            paths: typed("BIND_PATHS", map("BIND_PATHS")?)?,
            control: typed("CONTROL", map("CONTROL")?)?,
            lease: typed("LEASE", map("LEASE")?)?,
            counters: typed("COUNTERS", map("COUNTERS")?)?,
            sequence: typed("SEQUENCE", map("SEQUENCE")?)?,
        })
    }

    /// The record of the sock at this address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn record(&self, sk: u64) -> Result<Option<Record>, TracerError> {
        Ok(decode("LEDGER", self.ledger.get(&sk, 0))?.map(Record::join))
    }

    /// Where the binder of the sock at this address stood.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind_paths(&self, sk: u64) -> Result<Option<BindPaths>, TracerError> {
        decode("BIND_PATHS", self.paths.get(&sk, 0))
    }

    /// Every record, in no order. One that goes while this runs may be missed or not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn records(&self) -> Result<Vec<Record>, TracerError> {
        self.ledger
            .iter()
            .filter_map(|entry| match entry {
                Ok((_, bytes)) => {
                    decode("LEDGER", Ok(bytes)).transpose().map(|r| r.map(Record::join))
                }
                Err(source) => Some(Err(TracerError::Map { map: "LEDGER", source })),
            })
            .collect()
    }

    /// How many sockets the ledger holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ledger.keys().flatten().count()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ledger.keys().flatten().next().is_none()
    }

    /// Overwrites or adds a record: repair, and tests that plant a wrong one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put(&mut self, record: &Record) -> Result<(), TracerError> {
        let mut bytes = [0; size_of::<Record>()];
        bytes.copy_from_slice(record.split().as_bytes());
        self.ledger
            .insert(record.socket.sk, bytes, 0)
            .map_err(|source| TracerError::Map { map: "LEDGER", source })
    }

    /// Removes a record with what belongs to it: repair, and tests that plant a gap.
    ///
    /// # Errors
    /// The kernel's; that there is none is no error.
    pub fn remove(&mut self, sk: u64) -> Result<(), TracerError> {
        if_there("BIND_PATHS", self.paths.remove(&sk))?;
        if_there("LEDGER", self.ledger.remove(&sk))
    }

    /// What is attached.
    ///
    /// # Errors
    /// The kernel's.
    pub fn control(&self) -> Result<Control, TracerError> {
        decode("CONTROL", self.control.get(&0, 0))?.ok_or(TracerError::Missing("CONTROL element"))
    }

    /// Says what is attached. For who holds the lock on the pins.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_control(&mut self, control: Control) -> Result<(), TracerError> {
        let mut bytes = [0; size_of::<Control>()];
        bytes.copy_from_slice(Control { shapes: SHAPES, ..control }.as_bytes());
        self.control.set(0, bytes, 0).map_err(|source| TracerError::Map { map: "CONTROL", source })
    }

    /// Who follows.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lease(&self) -> Result<Lease, TracerError> {
        decode("LEASE", self.lease.get(&0, 0))?.ok_or(TracerError::Missing("LEASE element"))
    }

    /// Has events written. For a follower.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_lease(&mut self, lease: Lease) -> Result<(), TracerError> {
        let mut bytes = [0; size_of::<Lease>()];
        bytes.copy_from_slice(lease.as_bytes());
        self.lease.set(0, bytes, 0).map_err(|source| TracerError::Map { map: "LEASE", source })
    }

    /// The number that the next event of each CPU will have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next_numbers(&self) -> Result<Vec<(u32, u64)>, TracerError> {
        let values = self.sequence.get(&0, 0);
        let values = values.map_err(|source| TracerError::Map { map: "SEQUENCE", source })?;
        Ok((0..).zip(values.iter().copied()).collect())
    }

    /// Events lost, for each CPU.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lost_by_cpu(&self) -> Result<Vec<u64>, TracerError> {
        self.counters
            .get(&counter::LOST, 0)
            .map(|values| values.to_vec())
            .map_err(|source| TracerError::Map { map: "COUNTERS", source })
    }

    /// What the programs counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&self) -> Result<Counters, TracerError> {
        let mut sums = Counters::default();
        for (index, sum) in (0..).zip(&mut sums.0) {
            let values = self
                .counters
                .get(&index, 0)
                .map_err(|source| TracerError::Map { map: "COUNTERS", source })?;
            *sum = values.iter().sum();
        }
        Ok(sums)
    }
}

/// The ring buffer, pinned.
///
/// # Errors
/// A pin that is missing or is not a ring buffer.
pub fn open_events(directory: &Path) -> Result<RingBuf<MapData>, TracerError> {
    let map = Map::from_map_data(open_pin(directory, "EVENTS")?);
    map.and_then(RingBuf::try_from).map_err(|source| TracerError::Map { map: "EVENTS", source })
}

/// The ring buffer of an object that is loaded in this process.
///
/// # Errors
/// An object that is not ours.
pub fn take_events(object: &mut Object) -> Result<RingBuf<MapData>, TracerError> {
    RingBuf::try_from(object.take_map("EVENTS")?)
        .map_err(|source| TracerError::Map { map: "EVENTS", source })
}

fn typed<T: TryFrom<Map, Error = MapError>>(
    name: &'static str,
    map: Map,
) -> Result<T, TracerError> {
    T::try_from(map).map_err(|source| TracerError::Map { map: name, source })
}

/// That there was nothing to remove is no failure.
fn if_there(map: &'static str, removed: Result<(), MapError>) -> Result<(), TracerError> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        Err(source) => Err(TracerError::Map { map, source }),
    }
}

/// A map's answer as a shape; `None` if there is no such key.
fn decode<T: FromBytes, const N: usize>(
    map: &'static str,
    answer: Result<[u8; N], MapError>,
) -> Result<Option<T>, TracerError> {
    match answer {
        Ok(bytes) => Ok(T::read_from_bytes(&bytes).ok()),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(TracerError::Map { map, source }),
    }
}
