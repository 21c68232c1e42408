//! The machine that watches: through semihosting from the device, or this one.

use crate::png::Write;

#[cfg(target_os = "none")]
mod imp {
    use semihosting::fs::File;
    use semihosting::io::{Write as _, stdout};

    pub fn print(text: &str) {
        if let Ok(mut out) = stdout() {
            let _ = out.write_all(text.as_bytes());
        }
    }

    pub fn create(number: usize) -> Option<impl FnMut(&[u8]) -> bool> {
        let names = [
            c"frame-0.png",
            c"frame-1.png",
            c"frame-2.png",
            c"frame-3.png",
        ];
        let mut file = File::create(names.get(number)?).ok()?;
        Some(move |bytes: &[u8]| file.write_all(bytes).is_ok())
    }

    pub fn exit(code: i32) -> ! {
        semihosting::process::exit(code)
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        print("panic\n");
        exit(101)
    }
}

#[cfg(not(target_os = "none"))]
mod imp {
    use std::io::{BufWriter, Write as _};

    pub fn print(text: &str) {
        print!("{text}");
    }

    pub fn create(number: usize) -> Option<impl FnMut(&[u8]) -> bool> {
        let file = std::fs::File::create(format!("frame-{number}.png")).ok()?;
        let mut file = BufWriter::new(file);
        Some(move |bytes: &[u8]| file.write_all(bytes).is_ok())
    }

    pub fn exit(code: i32) -> ! {
        std::process::exit(code)
    }
}

pub use imp::print;

/// Saves what `encode` writes as picture `number`.
pub fn save(number: usize, encode: impl FnOnce(Write<'_>) -> bool) -> Result<(), &'static str> {
    let mut write = imp::create(number).ok_or("the picture can't be created")?;
    match encode(&mut write) {
        true => Ok(()),
        false => Err("the picture can't be written"),
    }
}

/// Ends the program, with a message when it failed.
pub fn exit(outcome: Result<(), &'static str>) -> ! {
    if let Err(message) = outcome {
        print(message);
        print("\n");
    }
    imp::exit(i32::from(outcome.is_err()))
}
