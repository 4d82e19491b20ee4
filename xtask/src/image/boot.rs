//! What happens before the kernel: the firmware starts U-Boot, and U-Boot's script chooses a slot.
//!
//! The choice is kept in the *boot state*: 512 bytes outside of every partition, twice, in the format of U-Boot's `env export -c`.
//! `try` names a slot that is to be started once. The script takes the word away before it starts that slot, so that a kernel that
//! ends before PID 1 has begun comes back on the slot that is known to be good. PID 1 says later whether the trial is kept
//! (`src/appliance`).
//!
//! U-Boot and not the firmware's own `tryboot`: Debian's kernels lack the flag for that, and of the firmware nothing runs in an
//! emulator, of U-Boot all.

use super::boards::{Board, Model};

/// Where U-Boot looks for what else is to be said to the kernel.
pub const EXTRA_FILE: &str = "extra.env";
/// Its only variable.
pub const EXTRA: &[u8] = b"\nextra=";
/// Room for its value, bytes; a person or an emulator can write into it without moving anything.
pub const EXTRA_BYTES: usize = 200;
/// The script.
pub const SCRIPT_FILE: &str = "boot.scr";
/// U-Boot's settings.
pub const ENVIRONMENT_FILE: &str = "uboot.env";
/// The kernel's parameters in a slot, as a variable of U-Boot's.
pub const PARAMETERS_FILE: &str = "slot.env";
/// The initramfs in a slot.
pub const INITRAMFS_FILE: &str = "initrd.gz";
/// The two places of the boot state, sectors in hexadecimal digits. They are in the gap before the first partition, and in different
/// pages of any flash.
const STATE_SECTORS: [&str; 2] = ["800", "808"];
/// `CONFIG_ENV_SIZE` of Debian's U-Boot for the Raspberry Pi.
const ENVIRONMENT_BYTES: usize = 0x4000;

/// The settings that take the place of U-Boot's own: it starts the script and nothing else, waits for nobody at the console, and
/// leaves USB alone, which Linux has to find as the power found it.
pub fn environment(board: &Board) -> Vec<u8> {
    let variables = [
        "board=rpi".to_owned(),
        format!("bootcmd=load mmc 0:1 ${{scriptaddr}} {SCRIPT_FILE}; source ${{scriptaddr}}; sleep 5; reset"),
        "bootdelay=-2".to_owned(),
        "devnum=0".to_owned(),
        "devtype=mmc".to_owned(),
        format!("kernel_addr_r={}", board.kernel_address),
        "scriptaddr=0x02400000".to_owned(),
        "stderr=serial,vidconsole".to_owned(),
        "stdin=serial".to_owned(),
        "stdout=serial,vidconsole".to_owned(),
    ];
    let mut text: Vec<u8> = variables.iter().flat_map(|variable| [variable.as_bytes(), b"\0"].concat()).collect();
    text.resize(ENVIRONMENT_BYTES - 4, 0);
    [&crc32(&text).to_le_bytes()[..], &text].concat()
}

/// The script, as U-Boot's `source` wants it.
pub fn script(board: &Board) -> Vec<u8> {
    let text = script_text(board).into_bytes();
    let length = u32::try_from(text.len()).unwrap_or(0);
    wrapped(&[&length.to_be_bytes()[..], &[0; 4], &text].concat(), SCRIPT, 0)
}

/// A program that is to be loaded at this address, as an emulator wants it that has no firmware to tell it.
pub fn program(contents: &[u8], address: u32) -> Vec<u8> {
    wrapped(contents, PROGRAM, address)
}

/// What is in a wrapper: Linux, a 32-bit ARM, a script or a program, not compressed.
const SCRIPT: [u8; 4] = [5, 2, 6, 0];
const PROGRAM: [u8; 4] = [5, 2, 2, 0];

/// U-Boot's "legacy" wrapper (its `include/image.h`).
fn wrapped(body: &[u8], kind: [u8; 4], address: u32) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    let header = |own: u32| {
        let length = u32::try_from(body.len()).unwrap_or(0);
        let words = [MAGIC, own, 0, length, address, address, crc32(body)];
        let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        header.extend(kind);
        header.resize(64, 0);
        header
    };
    [&header(crc32(&header(0))), body].concat()
}

/// Reads the boot state, chooses a slot, starts it; a slot whose files cannot be read, or are not what was written, gives way to the
/// other one.
///
/// Places in memory are counted from where this U-Boot puts kernels: the boot state at 72 MiB, device tree and initramfs behind it,
/// and at 128 MiB, for a 64-bit kernel, room to unpack it. A board of 512 MiB has them all.
fn script_text(board: &Board) -> String {
    let [first, second] = STATE_SECTORS;
    let load = |name: &str, address: &str| format!("load ${{devtype}} ${{devnum}}:${{part}} {address} {name}");
    let kernel = if board.is_64_bit() { "${kernel_addr_r}" } else { "${kernel}" };
    let go = if board.is_64_bit() { "booti" } else { "bootz" };
    let mut lines = vec![
        "setexpr state ${kernel_addr_r} + 0x4800000".to_owned(),
        "setexpr again ${kernel_addr_r} + 0x4801000".to_owned(),
        "setexpr sum ${kernel_addr_r} + 0x4802000".to_owned(),
        "setexpr tree ${kernel_addr_r} + 0x4900000".to_owned(),
        "setexpr initrd ${kernel_addr_r} + 0x5000000".to_owned(),
        // A 32-bit kernel unpacks itself, within the first 128 MiB.
        "setexpr kernel ${kernel_addr_r} + 0x2000000".to_owned(),
        "setexpr kernel_comp_addr_r ${kernel_addr_r} + 0x8000000".to_owned(),
        "setenv known; setenv slot; setenv try; setenv tried; setenv floor; setenv trial; setenv extra".to_owned(),
        "${devtype} dev ${devnum}".to_owned(),
        format!(
            "for sector in {first} {second}; do if test -z \"${{known}}\"; then if ${{devtype}} read ${{state}} 0x${{sector}} 1; \
             then if env import -c ${{state}} 0x200 slot try tried floor; then setenv known yes; fi; fi; fi; done"
        ),
        "if test \"${slot}\" != b; then setenv slot a; fi".to_owned(),
        "setenv chosen ${slot}".to_owned(),
        // Only what is written down is tried, and was read back: else it would be tried again and again. The second copy first, so
        // that one of them is always good.
        format!(
            "if test \"${{try}}\" = a || test \"${{try}}\" = b; then setenv tried ${{try}}; setenv try; \
             env export -c -s 0x200 ${{state}} slot tried floor; ${{devtype}} write ${{state}} 0x{second} 1; \
             if ${{devtype}} write ${{state}} 0x{first} 1; then if ${{devtype}} read ${{again}} 0x{first} 1; then \
             if cmp.b ${{state}} ${{again}} 0x200; then setenv chosen ${{tried}}; setenv trial portcullis.trial; fi; fi; fi; fi"
        ),
        format!(
            "if load ${{devtype}} ${{devnum}}:1 ${{state}} {EXTRA_FILE}; then env import -t ${{state}} ${{filesize}} extra; fi"
        ),
    ];
    // The emulator's machine brings its own device tree; the firmware of a Raspberry Pi passes the one that U-Boot runs on.
    lines.push("if test \"${board}\" = qemu-arm; then setenv console console=ttyAMA0; setenv model; else".to_owned());
    let console = |model: &Model| format!("setenv console \"console=tty0 console={}\"", model.console);
    lines.extend(board.models.first().map(console));
    lines.push("setenv model none".to_owned());
    for model in board.models {
        let (name, file) = (model.loader_tree, model.file);
        lines.push(format!("if test \"${{fdtfile}}\" = {name}; then setenv model {file}; {}; fi", console(model)));
    }
    lines.push("fi".to_owned());
    if !board.is_64_bit() {
        // At the end of the memory, where U-Boot would put them, a 32-bit kernel does not see them.
        lines.push("setenv fdt_high ffffffff; setenv initrd_high ffffffff".to_owned());
    }
    for name in ["initrd", "kernel"] {
        lines.push(format!(
            "setenv is_{name} 'itest.l *${{sum}} == ${{{name}_sum}} || itest.l *${{sum}} == ${{{name}_mus}}'"
        ));
    }
    lines.push(format!(
        "setenv start 'if test ${{chosen}} = b; then setenv part 3; else setenv part 2; fi; \
         setenv parameters; setenv initrd_sum; setenv initrd_mus; setenv kernel_sum; setenv kernel_mus; \
         if test -z \"${{model}}\"; then setenv fdt ${{fdtcontroladdr}}; else if {tree}; then setenv fdt ${{tree}}; \
         else setenv fdt ${{fdt_addr}}; fi; fi; \
         {parameters} && env import -t ${{state}} ${{filesize}} parameters initrd_sum initrd_mus kernel_sum kernel_mus && \
         {initrd} && setenv initrd_size ${{filesize}} && \
         crc32 ${{initrd}} ${{filesize}} ${{sum}} && run is_initrd && \
         {kernel_file} && setenv kernel_comp_size 0x${{filesize}} && \
         crc32 {kernel} ${{filesize}} ${{sum}} && run is_kernel && \
         setenv bootargs \"${{console}} ${{parameters}} portcullis.slot=${{chosen}} ${{trial}} ${{extra}}\" && \
         echo starting slot ${{chosen}} ${{trial}} && \
         {go} {kernel} ${{initrd}}:${{initrd_size}} ${{fdt}}'",
        tree = load("${model}", "${tree}"),
        parameters = load(PARAMETERS_FILE, "${state}"),
        initrd = load(INITRAMFS_FILE, "${initrd}"),
        kernel_file = load(board.kernel_file, kernel),
    ));
    lines.push("run start".to_owned());
    lines.push("echo slot ${chosen} does not start".to_owned());
    lines.push("if test ${chosen} = a; then setenv chosen b; else setenv chosen a; fi; setenv trial".to_owned());
    lines.push("run start".to_owned());
    lines.push("echo slot ${chosen} does not start".to_owned());
    // With U-Boot's own settings, who returns from here has a prompt, or a start from the network.
    lines.push("if test \"${board}\" != qemu-arm; then sleep 5; reset; fi".to_owned());
    lines.push(String::new());
    lines.join("\n")
}

/// The kernel's parameters of a slot, and checksums of what the script loads. A panic, of the kernel or of PID 1, starts the board again
/// after ten seconds.
pub fn parameters(kernel: &[u8], initramfs: &[u8]) -> String {
    let (kernel, initramfs) = (crc32(kernel), crc32(initramfs));
    // Some of Debian's U-Boots write a sum with its highest byte first and read it with its lowest first, and some do not.
    format!(
        "parameters=rdinit=/init panic=10 oops=panic quiet loglevel=4\nkernel_sum={kernel:x}\nkernel_mus={:x}\n\
         initrd_sum={initramfs:x}\ninitrd_mus={:x}\n",
        kernel.swap_bytes(),
        initramfs.swap_bytes()
    )
}

/// The file for more parameters, empty.
pub fn extra() -> Vec<u8> {
    let mut text = b"# More parameters of the kernel; spaces mean nothing.".to_vec();
    text.extend(EXTRA);
    text.resize(text.len() + EXTRA_BYTES, b' ');
    text.push(b'\n');
    text
}

/// CRC-32 of IEEE 802.3, as U-Boot has it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::boards;

    #[test]
    fn the_checksum_is_the_one_of_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn environment_and_script_carry_their_checksums() {
        let board = boards::named("rpi3").unwrap();
        let environment = environment(board);
        assert_eq!(environment.len(), ENVIRONMENT_BYTES);
        assert_eq!(environment[..4], crc32(&environment[4..]).to_le_bytes());
        let script = script(board);
        let (mut header, body) = (script[..64].to_vec(), &script[64..]);
        assert_eq!(header[24..28], crc32(body).to_be_bytes());
        let own: [u8; 4] = header[4..8].try_into().unwrap();
        header[4..8].fill(0);
        assert_eq!(own, crc32(&header).to_be_bytes());
    }

    #[test]
    fn a_script_that_starts_nothing_starts_the_board_again() {
        let text = script_text(boards::named("rpi4").unwrap());
        assert!(text.trim_end().ends_with("sleep 5; reset; fi"), "{text}");
    }

    #[test]
    fn the_script_knows_every_model_of_its_board() {
        let text = script_text(boards::named("rpi3").unwrap());
        for needed in ["bcm2837-rpi-3-b-plus.dtb; then setenv model rpi3bp.dtb", "booti", "0x800 1", "0x808 1"] {
            assert!(text.contains(needed), "{needed}");
        }
        let text = script_text(boards::named("rpi2").unwrap());
        for (model, console) in [("2836-rpi-2-b", "ttyAMA0"), ("2837-rpi-3-b", "ttyS1"), ("2837-rpi-3-b-plus", "ttyS1")]
        {
            let line = text.lines().find(|line| line.contains(&format!(" = bcm{model}.dtb"))).unwrap();
            assert!(line.contains(console), "{line}");
        }
        assert!(text.contains("bootz ${kernel} "));
    }
}
