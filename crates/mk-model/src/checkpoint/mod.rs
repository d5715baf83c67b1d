//! A checkpoint on disk.

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 8 exponent bits, 7 of mantissa.
    Bf16,
    /// IEEE half.
    F16,
    /// IEEE single.
    F32,
}

impl Dtype {
    /// The supported types, for messages.
    pub const NAMES: &str = "bf16, f16, f32";
}
