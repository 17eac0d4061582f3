//! Room `auditor`.
