//! The program's own log records (aya-log), handed to `tracing`.

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::KernelError;

/// Reader of the AYA_LOGS ring.
pub(super) struct Logs(EbpfLogger<ToTracing>);

impl Logs {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Logs, KernelError> {
        // The one way this fails is an object without the ring.
        EbpfLogger::init_with_logger(ebpf, ToTracing)
            .map(Logs)
            .map_err(|_| KernelError::Missing { name: portcullis_abi::map::LOGS })
    }

    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "xdp", "{text}"),
            log::Level::Warn => tracing::warn!(target: "xdp", "{text}"),
            log::Level::Info => tracing::info!(target: "xdp", "{text}"),
            log::Level::Debug => tracing::debug!(target: "xdp", "{text}"),
            log::Level::Trace => tracing::trace!(target: "xdp", "{text}"),
        }
    }

    fn flush(&self) {}
}
