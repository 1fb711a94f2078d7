//! The NBD wire protocol (the NBD project's `proto.md`): fixed newstyle handshake, simple replies.
//!
//! Reads from and writes to any stream; knows nothing of volumes.

use std::io::{self, Read, Write};

const MAGIC: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const REP_ERR_INVALID: u32 = 0x8000_0003;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// The most bytes of an option's data.
const OPTION_MAX: u32 = 4096;
/// The most bytes that one read or write may have.
pub const REQUEST_MAX: u32 = 32 << 20;

/// What an export can do, in the protocol's transmission flags.
pub fn flags(read_only: bool) -> u16 {
    const HAS_FLAGS: u16 = 1;
    const READ_ONLY: u16 = 2;
    const SEND_FLUSH: u16 = 4;
    const SEND_FUA: u16 = 8;
    const SEND_TRIM: u16 = 32;
    const SEND_WRITE_ZEROES: u16 = 64;
    match read_only {
        true => HAS_FLAGS | READ_ONLY | SEND_FLUSH,
        false => HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES,
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Give the range.
    Read,
    /// Put the bytes that follow the request there.
    Write,
    /// Goodbye; it is not answered.
    Disconnect,
    /// Make durable what was written.
    Flush,
    /// The range is no longer needed.
    Trim,
    /// Make the range zeroes; with `true` its room need not be kept.
    WriteZeroes(bool),
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub command: Command,
    /// Whether it must be durable when answered.
    pub fua: bool,
    /// What the answer must carry.
    pub cookie: u64,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

/// Shakes hands; true if the client goes on to requests, false if it left.
pub fn handshake(stream: &mut (impl Read + Write), size: u64, flags: u16) -> io::Result<bool> {
    let mut hello = Vec::new();
    hello.extend(MAGIC.to_be_bytes());
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    stream.write_all(&hello)?;
    let zeroes = u32::from_be_bytes(take(stream)?) & u32::from(NO_ZEROES) == 0;
    loop {
        if u64::from_be_bytes(take(stream)?) != OPTION_MAGIC {
            return Err(invalid("no option where one must be"));
        }
        let option = u32::from_be_bytes(take(stream)?);
        let len = u32::from_be_bytes(take(stream)?);
        if len > OPTION_MAX {
            return Err(invalid("an option that is too long"));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match option {
            OPT_EXPORT_NAME => {
                let mut answer = [&size.to_be_bytes()[..], &flags.to_be_bytes()].concat();
                answer.resize(answer.len() + if zeroes { 124 } else { 0 }, 0);
                stream.write_all(&answer)?;
                return Ok(true);
            }
            OPT_ABORT => {
                reply(stream, option, REP_ACK, &[])?;
                return Ok(false);
            }
            OPT_INFO | OPT_GO if data.len() < 6 => reply(stream, option, REP_ERR_INVALID, &[])?,
            OPT_INFO | OPT_GO => {
                inform(stream, option, size, flags)?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            _ => reply(stream, option, REP_ERR_UNSUP, &[])?,
        }
    }
}

/// There is one export per socket, so its name is not looked at.
fn inform(stream: &mut impl Write, option: u32, size: u64, flags: u16) -> io::Result<()> {
    let export = [&INFO_EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()].concat();
    reply(stream, option, REP_INFO, &export)?;
    let sizes = [512u32, 4096, REQUEST_MAX].map(u32::to_be_bytes).concat();
    reply(stream, option, REP_INFO, &[&INFO_BLOCK_SIZE.to_be_bytes()[..], &sizes].concat())?;
    reply(stream, option, REP_ACK, &[])
}

fn reply(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    stream.write_all(&bytes)
}

/// The next request; `Err` of kind `InvalidInput` names one that is well formed and cannot be done.
pub fn request(stream: &mut impl Read) -> io::Result<Result<Request, u64>> {
    const FUA: u16 = 1;
    const NO_HOLE: u16 = 2;
    if u32::from_be_bytes(take(stream)?) != REQUEST_MAGIC {
        return Err(invalid("no request where one must be"));
    }
    let flags = u16::from_be_bytes(take(stream)?);
    let kind = u16::from_be_bytes(take(stream)?);
    let cookie = u64::from_be_bytes(take(stream)?);
    let offset = u64::from_be_bytes(take(stream)?);
    let len = u32::from_be_bytes(take(stream)?);
    let command = match kind {
        0 => Command::Read,
        1 => Command::Write,
        2 => Command::Disconnect,
        3 => Command::Flush,
        4 => Command::Trim,
        6 => Command::WriteZeroes(flags & NO_HOLE == 0),
        _ => return Ok(Err(cookie)),
    };
    if matches!(command, Command::Read | Command::Write) && len > REQUEST_MAX {
        return Err(invalid("a request that is too long"));
    }
    Ok(Ok(Request { command, fua: flags & FUA != 0, cookie, offset, len }))
}

/// Answers a request. `error` is an errno, 0 for none; `data` what was read.
pub fn answer(stream: &mut impl Write, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
    let mut head = REPLY_MAGIC.to_be_bytes().to_vec();
    head.extend(error.to_be_bytes());
    head.extend(cookie.to_be_bytes());
    stream.write_all(&head)?;
    stream.write_all(data)
}

/// What a server says of its export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Bytes.
    pub size: u64,
}

/// Shakes hands as the client, for the export without a name.
pub fn greet(stream: &mut (impl Read + Write)) -> io::Result<Greeting> {
    if (u64::from_be_bytes(take(stream)?), u64::from_be_bytes(take(stream)?)) != (MAGIC, OPTION_MAGIC) {
        return Err(invalid("no server where one must be"));
    }
    let offered = u16::from_be_bytes(take(stream)?);
    if offered & FIXED_NEWSTYLE == 0 {
        return Err(invalid("a server of before the fixed handshake"));
    }
    let mut hello = u32::from(offered & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes().to_vec();
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend(OPT_GO.to_be_bytes());
    // A name of no bytes, and no wishes for information.
    hello.extend(6u32.to_be_bytes());
    hello.extend([0; 6]);
    stream.write_all(&hello)?;
    let mut greeting = None;
    loop {
        if u64::from_be_bytes(take(stream)?) != OPTION_REPLY_MAGIC
            || u32::from_be_bytes(take(stream)?) != OPT_GO
        {
            return Err(invalid("no reply where one must be"));
        }
        let (kind, len) = (u32::from_be_bytes(take(stream)?), u32::from_be_bytes(take(stream)?));
        if len > OPTION_MAX {
            return Err(invalid("a reply that is too long"));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match (kind, data.as_slice()) {
            (REP_ACK, _) => return greeting.ok_or_else(|| invalid("no size where one must be")),
            (REP_INFO, [0, 0, size @ .., _, _]) if size.len() == 8 => {
                let size = u64::from_be_bytes(size.try_into().unwrap_or_default());
                greeting = Some(Greeting { size });
            }
            (REP_INFO, _) => {}
            _ => return Err(invalid("the export was refused")),
        }
    }
}

/// Asks for something, as the client.
pub fn ask(stream: &mut impl Write, request: &Request, payload: &[u8]) -> io::Result<()> {
    let (kind, flags): (u16, u16) = match request.command {
        Command::Read => (0, 0),
        Command::Write => (1, 0),
        Command::Disconnect => (2, 0),
        Command::Flush => (3, 0),
        Command::Trim => (4, 0),
        Command::WriteZeroes(unmap) => (6, if unmap { 0 } else { 2 }),
    };
    let mut bytes = Vec::with_capacity(28 + payload.len());
    bytes.extend(REQUEST_MAGIC.to_be_bytes());
    bytes.extend((flags | u16::from(request.fua)).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(request.cookie.to_be_bytes());
    bytes.extend(request.offset.to_be_bytes());
    bytes.extend(request.len.to_be_bytes());
    bytes.extend(payload);
    stream.write_all(&bytes)
}

/// The beginning of an answer: an errno, 0 for none, and what it answers.
pub fn reply_head(stream: &mut impl Read) -> io::Result<(u32, u64)> {
    if u32::from_be_bytes(take(stream)?) != REPLY_MAGIC {
        return Err(invalid("no answer where one must be"));
    }
    Ok((u32::from_be_bytes(take(stream)?), u64::from_be_bytes(take(stream)?)))
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
