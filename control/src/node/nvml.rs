//! GPUs as the driver knows them (NVML): what they are, whether they are well, what runs on them.
//!
//! The driver may hang, so it is asked on a thread of its own; the rest of the node goes on with what it said last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};
use pilotfish_config::wire::node::{GpuState, SliceState};

use crate::log;

/// Between two looks, milliseconds.
const EVERY: u32 = 1000;
/// A driver that says nothing for so long has a trouble.
const SILENT: Duration = Duration::from_secs(10);
/// Xid errors that an application causes; every other one means the card (NVIDIA's device plugin for Kubernetes has the same list).
const OF_APPLICATIONS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// What the driver said last.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Its cards.
    pub(super) gpus: Vec<GpuState>,
    /// Bytes on cards by process.
    pub(super) by_pid: HashMap<u32, u64>,
    /// Why that is not all.
    pub(super) trouble: Option<String>,
    at: Option<Instant>,
}

/// Asks the driver every second.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Mutex<Said>>);

impl Watch {
    /// Begins. `None`: there is no driver, so there are no cards.
    pub(super) fn start() -> Option<Watch> {
        let nvml = match Nvml::init() {
            Ok(nvml) => nvml,
            Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => return None,
            Err(error) => {
                log::warn!("the GPU driver is there and does not answer", why = error);
                let trouble = Some(format!("NVML: {error}"));
                return Some(Watch(Arc::new(Mutex::new(Said { trouble, ..Said::default() }))));
            }
        };
        let said = Arc::new(Mutex::new(read(&nvml, &HashMap::new())));
        let watch = Watch(said.clone());
        let thread = std::thread::Builder::new().name("nvml".into());
        let started = thread.spawn(move || follow(&nvml, &said));
        if let Err(error) = started {
            log::warn!("GPUs are looked at only once", why = error);
        }
        Some(watch)
    }

    /// What it said last.
    pub(super) fn said(&self) -> Said {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if said.at.is_some_and(|at| at.elapsed() > SILENT) {
            said.trouble = Some(format!("NVML has not answered for more than {} s", SILENT.as_secs()));
        }
        said
    }
}

/// Looks every second, and at once when a card has an error.
fn follow(nvml: &Nvml, said: &Mutex<Said>) {
    let mut errors: HashMap<String, u64> = HashMap::new();
    let events = register(nvml);
    loop {
        match &events {
            Some(events) => match events.wait(EVERY) {
                Ok(event) => {
                    let code = match event.event_data {
                        Some(XidError::Value(code)) => code,
                        _ => 999,
                    };
                    if let (false, Ok(id)) = (OF_APPLICATIONS.contains(&code), event.device.uuid()) {
                        log::error!("a card has failed", gpu = id, xid = code);
                        errors.insert(id, code);
                    }
                }
                Err(NvmlError::Timeout) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(EVERY.into())),
            },
            None => std::thread::sleep(Duration::from_millis(EVERY.into())),
        }
        let now = read(nvml, &errors);
        *said.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Events of all cards that have them.
fn register(nvml: &Nvml) -> Option<EventSet<'_>> {
    let mut events = nvml.create_event_set().ok()?;
    for index in 0..nvml.device_count().ok()? {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        let has =
            device.supported_event_types().is_ok_and(|has| has.contains(EventTypes::CRITICAL_XID_ERROR));
        if has {
            events = device.register_events(EventTypes::CRITICAL_XID_ERROR, events).ok()?;
        }
    }
    Some(events)
}

fn read(nvml: &Nvml, errors: &HashMap<String, u64>) -> Said {
    let mut said = Said { at: Some(Instant::now()), ..Said::default() };
    let driver = nvml.sys_driver_version().ok();
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => {
            said.trouble = Some(format!("NVML: {error}"));
            return said;
        }
    };
    for index in 0..count {
        match nvml.device_by_index(index) {
            Ok(device) => {
                for process in device.running_compute_processes().unwrap_or_default() {
                    if let UsedGpuMemory::Used(bytes) = process.used_gpu_memory {
                        *said.by_pid.entry(process.pid).or_default() += bytes;
                    }
                }
                said.gpus.push(card(&device, index, driver.clone(), errors));
            }
            Err(error) => said.trouble = Some(format!("NVML, card {index}: {error}")),
        }
    }
    said
}

fn card(device: &Device<'_>, index: u32, driver: Option<String>, errors: &HashMap<String, u64>) -> GpuState {
    let id = device.uuid().unwrap_or_else(|_| index.to_string());
    let memory = device.memory_info();
    let failed = match &memory {
        Err(error) => Some(format!("NVML: {error}")),
        Ok(_) => errors.get(&id).map(|code| format!("Xid error {code}")).or_else(|| {
            // A driver or a card without ECC has no count.
            let lost = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).unwrap_or(0);
            (lost > 0).then(|| format!("{lost} memory errors that ECC could not correct"))
        }),
    };
    GpuState {
        model: device.name().unwrap_or_else(|_| "unknown".into()),
        memory: memory.as_ref().map_or(0, |memory| memory.total),
        used: memory.as_ref().map_or(0, |memory| memory.used),
        failed,
        driver,
        slices: slices(device),
        busy_percent: device
            .utilization_rates()
            .map_or(0, |rates| u8::try_from(rates.gpu.min(100)).unwrap_or(100)),
        id,
    }
}

/// MIG instances, where that is on.
fn slices(device: &Device<'_>) -> Vec<SliceState> {
    if !device.mig_mode().is_ok_and(|mode| mode.current == 1) {
        return Vec::new();
    }
    let many = device.mig_device_count().unwrap_or(0);
    let found = (0..many).filter_map(|index| {
        let slice = device.mig_device_by_index(index).ok()?;
        let name = slice.name().ok()?;
        // `NVIDIA A100-SXM4-80GB MIG 1g.10gb`
        let profile = name.rsplit(' ').next()?.to_owned();
        let memory = slice.memory_info().map_or(0, |memory| memory.total);
        Some(SliceState { id: slice.uuid().ok()?, profile, memory })
    });
    found.collect()
}
