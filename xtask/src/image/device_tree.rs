//! What flattened device trees say (Devicetree specification, chapter 5): which devices a board has. And what is added to them for U-Boot.

const MAGIC: u32 = 0xD00D_FEED;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;
const END: u32 = 9;
/// The only version that there is today, and bytes of its header.
const VERSION: u32 = 17;
const HEADER_BYTES: usize = 40;
/// An entry of the list of reserved memory; the last one is zero.
const RESERVED_BYTES: usize = 16;

/// What stands in a tree, one after the other.
#[derive(Debug)]
enum Token<'a> {
    /// A node begins; its name.
    Begin(&'a [u8]),
    /// A property of the innermost open node: name and value.
    Property(&'a [u8], &'a [u8]),
    /// The innermost open node ends.
    End,
    /// Nothing.
    Nothing,
    /// All of it ends.
    Finish,
}

/// A walk over a tree.
struct Walk<'a> {
    tree: &'a [u8],
    /// Where the next token is.
    at: usize,
    /// Where names of properties are.
    strings: usize,
}

impl<'a> Walk<'a> {
    /// `None`: it is no device tree.
    fn new(tree: &'a [u8]) -> Option<Self> {
        (word(tree, 0)? == MAGIC).then_some(())?;
        Some(Self { tree, at: offset(tree, 8)?, strings: offset(tree, 12)? })
    }

    /// The next token; `None`: the tree is cut or says nonsense.
    fn next(&mut self) -> Option<Token<'a>> {
        let text = |at: usize| self.tree.get(at..)?.split(|byte| *byte == 0).next();
        let token = word(self.tree, self.at)?;
        let at = self.at + 4;
        match token {
            BEGIN_NODE => {
                let name = text(at)?;
                self.at = (at + name.len() + 1).next_multiple_of(4);
                Some(Token::Begin(name))
            }
            PROPERTY => {
                let length = offset(self.tree, at)?;
                let name = text(self.strings.checked_add(offset(self.tree, at + 4)?)?)?;
                let value = self.tree.get(at + 8..(at + 8).checked_add(length)?)?;
                self.at = (at + 8 + length).next_multiple_of(4);
                Some(Token::Property(name, value))
            }
            END_NODE | NOTHING | END => {
                self.at = at;
                Some(match token {
                    END_NODE => Token::End,
                    NOTHING => Token::Nothing,
                    _ => Token::Finish,
                })
            }
            _ => None,
        }
    }
}

fn word(tree: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(tree.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn offset(tree: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word(tree, at)?).ok()
}

fn is_off(name: &[u8], value: &[u8]) -> bool {
    name == b"status" && !matches!(value, b"okay\0" | b"ok\0")
}

/// The `compatible` strings of all nodes that are not disabled, in their order; `None` for what is no device tree.
pub fn compatible(tree: &[u8]) -> Option<Vec<String>> {
    let mut walk = Walk::new(tree)?;
    let mut found = Vec::new();
    // What each open node says of itself: what it is, and whether it is switched on.
    let mut nodes: Vec<(Vec<String>, bool)> = Vec::new();
    loop {
        match walk.next()? {
            Token::Begin(_) => {
                let is_on = nodes.last().is_none_or(|(_, is_on)| *is_on);
                nodes.push((Vec::new(), is_on));
            }
            Token::End => {
                let (names, is_on) = nodes.pop()?;
                if is_on {
                    found.extend(names);
                }
            }
            Token::Property(name, value) => {
                let (names, is_on) = nodes.last_mut()?;
                if name == b"compatible" {
                    let parts = value.split(|byte| *byte == 0).filter(|part| !part.is_empty());
                    names.extend(parts.map(|part| String::from_utf8_lossy(part).into_owned()));
                }
                *is_on &= !is_off(name, value);
            }
            Token::Nothing => {}
            Token::Finish => return nodes.is_empty().then_some(found),
        }
    }
}

/// The tree with what U-Boot reads of it for itself. Linux does not care.
///
/// - `/aliases/mmc0` is `card`, the path of the controller that the card is at: without it U-Boot counts controllers in the order of the
///   tree, on a Raspberry Pi 4 the one of the radio first, and looks for its settings there.
/// - `/config/bootdelay` of -2: no prompt at the console, whatever else its settings are.
///
/// U-Boots of 32 bits bring a tree of their own and read neither; they count the card first anyway.
///
/// `None`: it is no device tree, `card` is not in it or switched off, or one of the two is there already.
pub fn for_loader(tree: &[u8], card: &str) -> Option<Vec<u8>> {
    (word(tree, 20)? == VERSION).then_some(())?;
    let mut walk = Walk::new(tree)?;
    let begin = walk.at;
    let mut path: Vec<&[u8]> = Vec::new();
    let (mut aliases, mut end, mut is_on) = (None, None, false);
    loop {
        let at = walk.at;
        match walk.next()? {
            Token::Begin(name) => {
                path.push(name);
                match path.as_slice() {
                    [_, b"aliases"] => aliases = Some(walk.at),
                    [_, b"config"] => return None,
                    open => is_on |= open.join(&b"/"[..]) == card.as_bytes(),
                }
            }
            Token::Property(name, value) => match path.as_slice() {
                [_, b"aliases"] if name == b"mmc0" => return None,
                open => is_on &= !(is_off(name, value) && open.join(&b"/"[..]) == card.as_bytes()),
            },
            Token::End => {
                path.pop()?;
                if path.is_empty() {
                    end = Some(at);
                }
            }
            Token::Nothing => {}
            Token::Finish => break,
        }
    }
    let (aliases, end) = (aliases.filter(|_| is_on)?, end?);

    let (old, size) = (offset(tree, 12)?, offset(tree, 32)?);
    let mut strings = tree.get(old..old.checked_add(size)?)?.to_vec();
    let mut property = |name: &[u8], value: &[u8]| -> Option<Vec<u8>> {
        let at = u32::try_from(strings.len()).ok()?;
        strings.extend([name, b"\0"].concat());
        let words = [PROPERTY, u32::try_from(value.len()).ok()?, at].map(u32::to_be_bytes);
        let mut bytes = [words.as_flattened(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Some(bytes)
    };
    let nodes = [
        tree.get(begin..aliases)?,
        &property(b"mmc0", &[card.as_bytes(), b"\0"].concat())?,
        tree.get(aliases..end)?,
        &BEGIN_NODE.to_be_bytes(),
        b"config\0\0",
        &property(b"bootdelay", &(-2_i32).to_be_bytes())?,
        &END_NODE.to_be_bytes(),
        tree.get(end..walk.at)?,
    ]
    .concat();
    let reserved = tree.get(offset(tree, 16)?..)?.chunks_exact(RESERVED_BYTES);
    let count = reserved.clone().position(|entry| entry.iter().all(|byte| *byte == 0))? + 1;
    let reserved: Vec<u8> = reserved.take(count).flatten().copied().collect();

    let nodes_at = HEADER_BYTES + reserved.len();
    let strings_at = nodes_at + nodes.len();
    let header = [
        MAGIC,
        u32::try_from(strings_at + strings.len()).ok()?,
        u32::try_from(nodes_at).ok()?,
        u32::try_from(strings_at).ok()?,
        u32::try_from(HEADER_BYTES).ok()?,
        VERSION,
        word(tree, 24)?,
        word(tree, 28)?,
        u32::try_from(strings.len()).ok()?,
        u32::try_from(nodes.len()).ok()?,
    ];
    Some([header.map(u32::to_be_bytes).as_flattened(), &reserved, &nodes, &strings].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"compatible\0status\0mmc0\0";

    /// A tree of a root with aliases, with this property, and two children, the second disabled.
    fn tree(alias: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let word = |body: &mut Vec<u8>, value: u32| body.extend(value.to_be_bytes());
        let property = |body: &mut Vec<u8>, name: u32, value: &[u8]| {
            body.extend(PROPERTY.to_be_bytes());
            body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(name.to_be_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        word(&mut body, BEGIN_NODE);
        body.extend(b"\0\0\0\0");
        word(&mut body, BEGIN_NODE);
        body.extend(b"aliases\0");
        property(&mut body, alias, b"/a\0");
        word(&mut body, END_NODE);
        for (node, name, status) in
            [(&b"on\0\0"[..], &b"a,uart\0b,uart\0"[..], &b"okay\0"[..]), (b"off\0", b"a,wifi\0", b"disabled\0")]
        {
            word(&mut body, BEGIN_NODE);
            body.extend(node);
            property(&mut body, 0, name);
            property(&mut body, 11, status);
            word(&mut body, END_NODE);
        }
        word(&mut body, END_NODE);
        word(&mut body, END);
        let mut tree = Vec::new();
        let number = |value: usize| u32::try_from(value).unwrap();
        let strings_at = HEADER_BYTES + 2 * RESERVED_BYTES + body.len();
        let total = number(strings_at + STRINGS.len());
        let (nodes_at, strings_at) = (number(HEADER_BYTES + 2 * RESERVED_BYTES), number(strings_at));
        let sizes = [number(STRINGS.len()), number(body.len())];
        for value in [MAGIC, total, nodes_at, strings_at, 40, VERSION, 16, 0, sizes[0], sizes[1]] {
            word(&mut tree, value);
        }
        tree.extend([7; RESERVED_BYTES]);
        tree.extend([0; RESERVED_BYTES]);
        tree.extend(body);
        tree.extend(STRINGS);
        tree
    }

    /// All nodes and properties in words.
    fn told(tree: &[u8]) -> Vec<String> {
        let mut walk = Walk::new(tree).unwrap();
        let mut told = Vec::new();
        loop {
            match walk.next().unwrap() {
                Token::Finish => return told,
                token => told.push(match token {
                    Token::Property(name, value) => format!("{}={}", name.escape_ascii(), value.escape_ascii()),
                    Token::Begin(name) => format!("{} {{", name.escape_ascii()),
                    Token::End => "}".to_owned(),
                    Token::Nothing | Token::Finish => String::new(),
                }),
            }
        }
    }

    #[test]
    fn devices_that_are_switched_off_do_not_count() {
        assert_eq!(compatible(&tree(0)).unwrap(), ["/a", "a,uart", "b,uart"]);
    }

    #[test]
    fn a_tree_that_is_cut_is_none() {
        let whole = tree(0);
        for length in 0..whole.len() - STRINGS.len() {
            assert_eq!(compatible(&whole[..length]), None, "{length}");
            assert_eq!(for_loader(&whole[..length], "/on"), None, "{length}");
        }
    }

    #[test]
    fn u_boot_finds_its_card_and_no_prompt_and_everything_else_stays() {
        let before = tree(0);
        let after = for_loader(&before, "/on").unwrap();
        let mut wanted = told(&before);
        wanted.insert(2, "mmc0=/on\\x00".to_owned());
        let end = wanted.len() - 1;
        wanted.splice(end..end, ["config {", "bootdelay=\\xff\\xff\\xff\\xfe", "}"].map(str::to_owned));
        assert_eq!(told(&after), wanted);
        assert_eq!(after[HEADER_BYTES..][..2 * RESERVED_BYTES], before[HEADER_BYTES..][..2 * RESERVED_BYTES]);
        assert_eq!(word(&after, 4), u32::try_from(after.len()).ok());
        assert_eq!(for_loader(&after, "/on"), None, "it says so already");
    }

    #[test]
    fn a_card_that_cannot_be_there_is_none() {
        for card in ["/off", "/absent", "on"] {
            assert_eq!(for_loader(&tree(0), card), None, "{card}");
        }
        let mmc0 = u32::try_from(STRINGS.len() - 5).unwrap();
        assert_eq!(for_loader(&tree(mmc0), "/on"), None, "another card is named");
    }
}
