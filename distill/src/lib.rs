//! Distillation: small students from large teachers.
//!
//! * [`zoo`] has the students: what they are made of, what they cost, and their weights;
//! * [`export`] writes what is trained as ONNX, and [`import`] reads ONNX files as students;
//! * [`data`] finds pictures and puts them into batches;
//! * [`text`] makes token ids of captions;
//! * [`augment`] makes the same pixels of a picture and a seed on every machine;
//! * [`teacher`] runs large models over the pictures;
//! * [`store`] keeps what they answer, from which students are trained;
//! * [`loss`] says how far a student is from them;
//! * [`elastic`] trains one set of weights for networks of many sizes;
//! * [`scalekd`] has it learn a teacher's maps, too;
//! * [`train`] brings it nearer;
//! * [`taylor`] says what a network's channels matter to its loss.

#![deny(unsafe_code)]

pub mod augment;
pub mod data;
pub mod elastic;
pub mod export;
pub mod import;
pub mod loss;
pub mod scalekd;
pub mod store;
pub mod taylor;
pub mod teacher;
pub mod text;
pub mod train;
pub mod zoo;

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
