//! Reads protobuf's text format.

use std::iter::Peekable;
use std::str::Chars;

/// A message: its fields, in order. Repeated fields occur several times.
#[derive(Debug, Default)]
pub(crate) struct Message {
    fields: Vec<(String, Field)>,
}

/// The value of a field.
#[derive(Debug)]
pub(crate) enum Field {
    Message(Message),
    /// A string or bytes literal, decoded.
    Bytes(Vec<u8>),
    /// A number or an identifier.
    Word(String),
}

impl Message {
    /// Parses a text.
    ///
    /// # Errors
    /// The text is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Reader { chars: text.chars().peekable() }.message(None)
    }

    /// Returns the fields, in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Field> {
        self.fields().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Returns the messages of a repeated field.
    pub(crate) fn all<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m Message> {
        self.fields().filter(move |(known, _)| *known == name).filter_map(|(_, value)| value.message())
    }

    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.get(name)?.message()
    }

    /// Returns the text of a string field, or an empty text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.get(name).map(Field::text).unwrap_or_default()
    }
}

impl Field {
    pub(crate) fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Word(word) => word.as_bytes(),
            Self::Message(_) => &[],
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

struct Reader<'t> {
    chars: Peekable<Chars<'t>>,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        while let Some(letter) = self.chars.peek() {
            match letter {
                '#' => while self.chars.next().is_some_and(|it| it != '\n') {},
                it if it.is_whitespace() || matches!(it, ',' | ';') => {
                    self.chars.next();
                }
                _ => return,
            }
        }
    }

    /// Reads fields up to the closing bracket, or to the end of the text.
    fn message(&mut self, close: Option<char>) -> Result<Message, String> {
        let mut message = Message::default();
        loop {
            self.skip_space();
            match self.chars.peek() {
                None if close.is_none() => return Ok(message),
                None => return Err("unexpected end of text".to_owned()),
                Some(letter) if Some(*letter) == close => {
                    self.chars.next();
                    return Ok(message);
                }
                Some(_) => {}
            }
            let name = self.name()?;
            self.skip_space();
            if self.chars.peek() == Some(&':') {
                self.chars.next();
                self.skip_space();
            }
            if self.chars.peek() == Some(&'[') {
                self.chars.next();
                loop {
                    self.skip_space();
                    if self.chars.peek() == Some(&']') {
                        self.chars.next();
                        break;
                    }
                    let value = self.value()?;
                    message.fields.push((name.clone(), value));
                }
            } else {
                let value = self.value()?;
                message.fields.push((name, value));
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        if self.chars.peek() == Some(&'[') {
            self.chars.next();
            let mut name = String::new();
            for letter in self.chars.by_ref() {
                if letter == ']' {
                    return Ok(name);
                }
                name.push(letter);
            }
        }
        self.word()
    }

    fn word(&mut self) -> Result<String, String> {
        let mut word = String::new();
        while let Some(letter) =
            self.chars.next_if(|it| it.is_alphanumeric() || matches!(it, '_' | '.' | '-' | '+'))
        {
            word.push(letter);
        }
        if word.is_empty() { Err(format!("unexpected {:?}", self.chars.peek())) } else { Ok(word) }
    }

    fn value(&mut self) -> Result<Field, String> {
        match self.chars.peek() {
            Some('{') => {
                self.chars.next();
                Ok(Field::Message(self.message(Some('}'))?))
            }
            Some('<') => {
                self.chars.next();
                Ok(Field::Message(self.message(Some('>'))?))
            }
            Some('"' | '\'') => {
                // Adjacent literals are one.
                let mut bytes = Vec::new();
                while let Some(quote) = self.chars.next_if(|it| matches!(it, '"' | '\'')) {
                    self.literal(quote, &mut bytes)?;
                    self.skip_space();
                }
                Ok(Field::Bytes(bytes))
            }
            _ => Ok(Field::Word(self.word()?)),
        }
    }

    fn literal(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), String> {
        let mut buffer = [0; 4];
        loop {
            let letter = self.chars.next().ok_or("unterminated literal")?;
            if letter == quote {
                return Ok(());
            }
            if letter != '\\' {
                bytes.extend(letter.encode_utf8(&mut buffer).bytes());
                continue;
            }
            let escape = self.chars.next().ok_or("unterminated escape")?;
            let code = match escape {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'v' => '\u{b}',
                'x' | 'X' => {
                    bytes.push(self.digits(16, 2)? as u8);
                    continue;
                }
                'u' => char::from_u32(self.digits(16, 4)?).ok_or("invalid code point")?,
                'U' => char::from_u32(self.digits(16, 8)?).ok_or("invalid code point")?,
                '0'..='7' => {
                    let first = escape.to_digit(8).unwrap_or_default();
                    let (mut code, mut count) = (first, 1);
                    while count < 3
                        && let Some(digit) = self.chars.next_if(|it| it.is_digit(8))
                    {
                        code = code * 8 + digit.to_digit(8).unwrap_or_default();
                        count += 1;
                    }
                    bytes.push(code as u8);
                    continue;
                }
                other => other,
            };
            bytes.extend(code.encode_utf8(&mut buffer).bytes());
        }
    }

    fn digits(&mut self, radix: u32, max: usize) -> Result<u32, String> {
        let mut text = String::new();
        while text.len() < max
            && let Some(digit) = self.chars.next_if(|it| it.is_digit(radix))
        {
            text.push(digit);
        }
        u32::from_str_radix(&text, radix).map_err(|error| error.to_string())
    }
}
