//! Emulates AMX for tests on a processor without it: its instructions trap, and the handler of the trap executes them
//! as Intel's manual (volume 2, "TDPBF16PS" and the others) describes. It asserts the manual's conditions, so that it
//! finds wrong shapes.

#![allow(unsafe_code, reason = "a handler of traps reads and writes the operands of instructions")]
#![allow(clippy::panic, reason = "a panic is the failure of a test")]

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

/// Rows of a tile.
const ROWS: usize = 16;
/// Bytes of a row of a tile.
const LINE: usize = 64;

/// The operand of `ldtilecfg`: palette, first row and 14 bytes of zeros, then the bytes of a row of each of 16
/// registers, then their rows.
const CONFIG: usize = 64;
const CONFIG_BYTES: usize = 16;
const CONFIG_ROWS: usize = 48;

/// Numbers of the registers of a context, in the order in which instructions number them.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    bytes: usize,
    data: [[u8; LINE]; ROWS],
}

const EMPTY: Tile = Tile { rows: 0, bytes: 0, data: [[0; LINE]; ROWS] };

thread_local! {
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([EMPTY; 8]) };
}

/// Installs the handler of illegal instructions.
pub(crate) fn install() -> bool {
    // SAFETY: zeros are an action without flags; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = trapped as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()) == 0
    }
}

/// A panic in here ends the process with its message.
extern "C" fn trapped(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the context of the thread that trapped, which is this one, and the handler has it
    // alone.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: the bytes of an instruction can be read; the longest one here has 11, and more code follows.
    let code = unsafe { std::slice::from_raw_parts(registers[libc::REG_RIP as usize] as *const u8, 12) };
    let length = TILES.with_borrow_mut(|tiles| run(code, registers, tiles));
    registers[libc::REG_RIP as usize] += length as i64;
}

/// Executes an instruction of AMX, and returns its length.
fn run(code: &[u8], registers: &[i64; 23], tiles: &mut [Tile; 8]) -> usize {
    let &[0xC4, first, second, opcode, modes, ..] = code else { panic!("no instruction of AMX: {code:02X?}") };
    // VEX.128, opcodes 0F38, W0; the prefixes none, 66, F3 and F2 are numbers.
    assert!(first & 0x1F == 2 && second & 0x84 == 0, "no instruction of AMX: {code:02X?}");
    let prefix = second & 3;
    let (is_register, reg, rm) = (modes >> 6 == 3, usize::from(modes >> 3 & 7), usize::from(modes & 7));
    let third = usize::from(!second >> 3 & 15);
    match (opcode, prefix, is_register) {
        (0x49, 0, false) => {
            let (address, index, length) = operand(code, registers);
            configure(address.wrapping_add(index), tiles);
            length
        }
        (0x49, 0, true) => {
            assert!(modes == 0xC0, "tilerelease");
            *tiles = [EMPTY; 8];
            5
        }
        (0x49, 3, true) => {
            tiles[reg].data = EMPTY.data;
            5
        }
        (0x4B, 2 | 3, false) => {
            let (address, stride, length) = operand(code, registers);
            let tile = &mut tiles[reg];
            assert!(tile.rows > 0, "register {reg} is used, and has no shape");
            let lines = tile.data.iter_mut().take(tile.rows).enumerate();
            for (row, line) in lines {
                let memory = address.wrapping_add(row * stride) as *mut u8;
                let bytes = &mut line[..tile.bytes];
                // SAFETY: the memory is that of the emulated instruction; an address sanitizer checks the access here.
                unsafe {
                    if prefix == 3 {
                        std::ptr::copy_nonoverlapping(memory, bytes.as_mut_ptr(), bytes.len());
                    } else {
                        std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
                    }
                }
            }
            length
        }
        (0x5C, 2, true) => {
            multiply(tiles, [reg, rm, third], bfloats);
            5
        }
        (0x5E, 3, true) => {
            multiply(tiles, [reg, rm, third], bytes);
            5
        }
        _ => panic!("an instruction of AMX that is not emulated: {code:02X?}"),
    }
}

/// The address of an operand in memory, the index (added, or multiplied by the row), and the length of the instruction.
fn operand(code: &[u8], registers: &[i64; 23]) -> (usize, usize, usize) {
    let value = |number: usize| registers[REGISTERS[number] as usize] as usize;
    let high = |bit: u8| usize::from(code[1] >> bit & 1 == 0) << 3;
    let (mode, rm) = (code[4] >> 6, usize::from(code[4] & 7));
    let (base, index, at) = if rm == 4 {
        let (scale, index, base) = (code[5] >> 6, usize::from(code[5] >> 3 & 7) | high(6), usize::from(code[5] & 7));
        (base, if index == 4 { 0 } else { value(index) << scale }, 6)
    } else {
        (rm, 0, 5)
    };
    assert!(mode != 0 || base != 5, "an address without a base");
    let (displacement, length) = match mode {
        0 => (0, at),
        1 => (isize::from(code[at] as i8), at + 1),
        _ => (i32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]) as isize, at + 4),
    };
    (value(base | high(5)).wrapping_add_signed(displacement), index, length)
}

fn configure(address: usize, tiles: &mut [Tile; 8]) {
    // SAFETY: the memory is that of the emulated instruction.
    let config: [u8; CONFIG] = unsafe { std::ptr::read_unaligned(address as *const [u8; CONFIG]) };
    assert!(config[0] == 1 && config[1..CONFIG_BYTES].iter().all(|&byte| byte == 0), "palette 1, from the first row");
    assert!(config[CONFIG_BYTES + 16..CONFIG_ROWS].iter().all(|&byte| byte == 0), "a shape for a register beyond 8");
    assert!(config[CONFIG_ROWS + 8..].iter().all(|&byte| byte == 0), "rows of a register beyond 8");
    for (index, tile) in tiles.iter_mut().enumerate() {
        let at = CONFIG_BYTES + 2 * index;
        let bytes = usize::from(u16::from_le_bytes([config[at], config[at + 1]]));
        let rows = usize::from(config[CONFIG_ROWS + index]);
        assert!(rows <= ROWS && bytes <= LINE && (rows == 0) == (bytes == 0), "register {index}: {rows} by {bytes}");
        *tile = Tile { rows, bytes, ..EMPTY };
    }
}

/// Adds the product of the second and the third register to the first, by words of four bytes.
fn multiply(tiles: &mut [Tile; 8], [sums, a, b]: [usize; 3], product: impl Fn(&Tile, &Tile, &mut Tile)) {
    assert!(sums != a && sums != b && a != b, "two registers are the same");
    let (left, right, result) = (tiles[a], tiles[b], &mut tiles[sums]);
    assert!(left.rows > 0 && right.rows > 0, "registers {a} and {b} are multiplied, and have no shape");
    assert!(left.bytes == 4 * right.rows && right.bytes.is_multiple_of(4), "registers {a} and {b} do not fit");
    assert!(result.rows == left.rows && result.bytes == right.bytes, "register {sums} does not fit");
    product(&left, &right, result);
}

/// The words of a row.
fn words(tile: &Tile, row: usize) -> impl Iterator<Item = [u8; 4]> {
    tile.data[row][..tile.bytes].as_chunks().0.iter().copied()
}

/// `tdpbf16ps`: sums of the first and of the second of each pair, which are then added. Subnormal numbers are zero.
fn bfloats(a: &Tile, b: &Tile, result: &mut Tile) {
    let flush = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
    let pair = |word: [u8; 4]| {
        let word = u32::from_le_bytes(word);
        [flush(f32::from_bits(word << 16)), flush(f32::from_bits(word & 0xFFFF_0000))]
    };
    let mut rights = [[[0.0f32; 2]; LINE / 4]; ROWS];
    for (row, rights) in rights.iter_mut().enumerate().take(b.rows) {
        rights.iter_mut().zip(words(b, row)).for_each(|(right, word)| *right = pair(word));
    }
    for row in 0..a.rows {
        let mut sums = [[0.0f32; 2]; LINE / 4];
        for (left, rights) in words(a, row).map(pair).zip(&rights) {
            for (sums, right) in sums.iter_mut().zip(rights) {
                for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
                    *sum = flush(left.mul_add(*right, *sum));
                }
            }
        }
        for (result, [first, second]) in result.data[row][..b.bytes].as_chunks_mut().0.iter_mut().zip(sums) {
            let before = flush(f32::from_le_bytes(*result));
            *result = flush(before + flush(first + second)).to_le_bytes();
        }
    }
}

/// `tdpbssd`: products of signed bytes in sums of 32 bits.
fn bytes(a: &Tile, b: &Tile, result: &mut Tile) {
    for row in 0..a.rows {
        for (left, right_row) in words(a, row).zip(0..b.rows) {
            for (result, right) in result.data[row][..b.bytes].as_chunks_mut().0.iter_mut().zip(words(b, right_row)) {
                let dot: i32 = left.iter().zip(right).map(|(&l, r)| i32::from(l as i8) * i32::from(r as i8)).sum();
                *result = i32::from_le_bytes(*result).wrapping_add(dot).to_le_bytes();
            }
        }
    }
}
