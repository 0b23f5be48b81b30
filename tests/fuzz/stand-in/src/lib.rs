//! The two calls of aya-ebpf that packet parsing makes, over ordinary memory, so that the source of
//! the XDP program's parser runs on the host under AddressSanitizer.
//!
//! Invariant: the frame ends where its allocation ends, so that reading one byte past it is caught,
//! and network headers lie at multiples of four, as the kernel lays them.

/// What the kernel calls its programs with.
pub mod programs {
    /// Bytes before a frame that put what follows its 14-byte Ethernet header at a multiple of four.
    const LEAD: usize = 2;

    /// A frame in memory of its own.
    pub struct XdpContext(Box<[u8]>);

    impl XdpContext {
        /// Copies `frame`.
        pub fn of(frame: &[u8]) -> XdpContext {
            let memory = [&[0; LEAD], frame].concat().into_boxed_slice();
            assert!(memory.as_ptr().addr().is_multiple_of(8), "the allocator aligns to words");
            XdpContext(memory)
        }

        /// Address of the first byte.
        pub fn data(&self) -> usize {
            self.0.as_ptr().expose_provenance() + LEAD
        }

        /// Address after the last byte.
        pub fn data_end(&self) -> usize {
            self.0.as_ptr().expose_provenance() + self.0.len()
        }
    }
}
