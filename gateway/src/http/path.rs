//! The one path that every decision uses and that is forwarded.
//!
//! Owns normalisation of the path of a target (RFC 3986 section 6.2.2). Never sees the query.
//! Invariant: normalising twice changes nothing more, and the result never leads above its root.

/// What is done with the spellings that let two programs disagree about a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathPolicy {
    /// Let `%2F` through, as it is. Default: refused.
    pub allow_encoded_slash: bool,
    /// Let `%5C` through, as it is, and a raw backslash as `%5C`. Default: refused.
    pub allow_backslash: bool,
    /// Let `%00` through, as it is. Default: refused.
    pub allow_encoded_nul: bool,
    /// Let segments such as `..;a` through, which some servers read as `..`. Default: refused.
    pub allow_dot_parameters: bool,
    /// Make one slash of several. Default: they stay.
    pub merge_slashes: bool,
}
