//! Room `projector`.
