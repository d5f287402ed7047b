//! The REST side of a kernel gateway.
