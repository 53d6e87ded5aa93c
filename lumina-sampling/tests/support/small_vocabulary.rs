// For examples in the documentation and for tests, which include it as an expression: a vocabulary of 31 tokens and the
// placeholder, with 4 codes, sizes up to 3 cells and 16 words.
{
    let named = [
        ("<s>", 0),
        ("<pad>", 1),
        ("IMGIMGCZ", 4),
        ("IMGIMGAZ", 5),
        ("IMGIMGDZ", 6),
        ("IMGIMGBZ", 7),
        ("<eoss>", 8),
        ("<racm3:break>", 9),
        ("<reserved08706>", 10),
        ("<reserved08799>", 11),
        ("<reserved08801>", 12),
        ("<reserved08802>", 13),
        ("<reserved08803>", 14),
    ];
    let words: Vec<String> = (15..31).map(|id| format!("word{id}")).collect();
    let words = words.iter().map(String::as_str).zip(15..);
    lumina_core::Vocabulary::from_tokens(named.into_iter().chain(words)).expect("every role is there")
}
