//! The text from which the synthetic tokenizer learns its first merges: everyday English for the greater part, so that
//! short vocabularies are of some use, then a little of other scripts, of code and of JSON.

pub(super) const CORPUS: &str = r#"
The harbour was quiet in the morning. A woman in a yellow coat walked along the water with her dog, and the two of
them stopped where the fishing boats were tied up. She asked the old man on the first boat whether the weather would
hold. He looked at the sky for a while, as if the answer was written there, and said that it would, at least until the
evening. Then he went back to his nets. She thanked him and walked on towards the lighthouse, which could be seen from
everywhere in the town.

What is the best way to learn something new? There are many answers to this question, and none of them is right for
everyone. Some people read a book from the first page to the last. Others start with a small problem, try to solve it,
and look things up when they do not know how to go on. I think that the second way is the better one for most of us,
because a thing that we have found out ourselves stays with us for longer than a thing that we have been told. But it
takes more time, and it helps to have somebody near who can say when we are going in the wrong direction.

"Where have you been?" she asked. "I've been waiting here for an hour." He didn't answer at once. He'd lost his way
between the station and the market, he said, and there wasn't anyone he could have asked. "You're late again," she
said, "but I'm glad that you're here, and we'll find a place where they still have something to eat." They'd known each
other for many years. It's hard to be angry for long with a friend like that, isn't it?

The report describes how the system works, what it needs, and how well it does. A user sends a message to the model;
the model reads all of the messages before it, one token after another, and writes an answer. Each token is a number,
and each number stands for a piece of text. The time that the first token takes depends on the length of the input; the
time of every other token depends on the speed of the memory. With a small model and a good computer, that is less than
a hundredth of a second. The answer ends when the model writes a special token, or when there is no room left.

Please write a short story about a bird that can not fly. Tell me what the capital of France is. How many days are
there in the year 2024? Can you explain why the sky is blue and why it turns red when the sun goes down? Give me three
examples of animals which live both on the land and in the water. Translate the following sentence into German. Let us
think about this step by step. First, we need to know how many apples there are in all. If every child gets two of them
and there are twelve children, then we need twenty four apples. So the answer is 24. Is there anything else I can help
you with today? Yes, of course, here is a list of things that you should do before you leave the house: close all the
windows, turn off the lights, take your keys and your telephone with you, and don't forget to feed the cat.

Water is made of two parts of hydrogen and one part of oxygen. At the level of the sea it boils at 100 degrees and
freezes at 0. Ice is lighter than water, and that is why it swims on the top of a lake while the fish live on under it
through the winter. Nearly three quarters of the surface of the earth is covered with water, but only a small part of it
can be used for drinking. In some countries people have to walk for several hours every day to get it.

The assistant answered: <think> The user wants to know the temperature in the city. I should call the function with the
right arguments and then tell the result. </think> The temperature is 21.5 degrees, with light wind from the west.
{"name": "get_weather", "arguments": {"location": "Paris", "unit": "celsius", "days": 3}}
{"type": "function", "function": {"name": "search", "description": "Search for documents", "parameters": {"type":
"object", "properties": {"query": {"type": "string"}, "limit": {"type": "number"}}, "required": ["query"]}}}

fn main() {
    let mut total = 0;
    for number in 1..=10 {
        if number % 2 == 0 {
            total += number;
        }
    }
    println!("the total is {}", total);
}

def greet(name):
    """Return a greeting."""
    if not name:
        return None
    return "Hello, " + name + "!"

Das Wetter ist heute schön, und wir gehen über die Brücke in die Stadt. Où est la bibliothèque? Elle est près de
l'église, à côté du café. Mañana será otro día. Привет, как дела? Это очень хорошо. 今天天气很好。你好,世界!这是一个模型。
日本語のテキストです。これはペンです。안녕하세요. नमस्ते 😀 🎉 👍
"#;
