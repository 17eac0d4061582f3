//! Room `contracts`.
