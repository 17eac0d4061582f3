//! Room `dispatcher`.
