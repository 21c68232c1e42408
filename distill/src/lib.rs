//! Distillation: small students from large teachers.
//!
//! * [`zoo`] has the students: what they are made of, what they cost, and how they become ONNX files;
//! * [`augment`] makes the same pixels of a picture and a seed on every machine.

#![deny(unsafe_code)]

pub mod augment;
pub mod data;
pub mod store;
pub mod zoo;

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
