//! How HTTP is read, and what is said in it.

/// What requests are held to (`http`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `%2F` in a path.
    pub encoded_slash: Doubtful,
    /// `%5C` or a backslash in a path.
    pub backslash: Doubtful,
    /// Fields of requests with an underscore in their name.
    pub underscores: Underscores,
    /// Whether several slashes in a path are one.
    pub merge_slashes: bool,
    /// The `Server` field of responses.
    pub server_header: ServerHeader,
    /// What becomes of the request of a client that has finished sending.
    pub half_closed: HalfClosed,
    /// Times that a request may have passed a gateway of this kind before; 0 sets no limit.
    pub via_limit: u32,
}

/// What is done with a spelling that some programs read as a slash and others do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Doubtful {
    /// 400.
    #[default]
    Reject,
    /// It stays, percent-encoded.
    Keep,
    /// It is a slash.
    Decode,
}

/// What is done with fields of requests that have an underscore in their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Underscores {
    /// They are left out.
    #[default]
    Drop,
    /// They go on.
    Keep,
    /// 400.
    Reject,
}

/// The `Server` field of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServerHeader {
    /// What the upstream says.
    #[default]
    Pass,
    /// None.
    Remove,
    /// Ours.
    Replace,
}

/// What becomes of the request of a client that has finished sending and waits for its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HalfClosed {
    /// It is given up.
    #[default]
    Cancel,
    /// It is served.
    Serve,
}
