"""Prompts that are continued instead of followed: solved examples, for base models that know no chat."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from llama_index_embft.generation.parse import without_reasoning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_index_embft.generation.settings import QueryKind

_Pair: TypeAlias = tuple[str, str]  # a query and its answer


class _SolvedExample(NamedTuple):
    passage: str
    pairs: Mapping[str, Sequence[_Pair]]  # kind -> different queries of it


_EXAMPLES: Final[dict[str, tuple[_SolvedExample, ...]]] = {
    "en": (
        _SolvedExample(
            "The number 28 tram in Lisbon runs from Martim Moniz to Campo de Ourique. A single ticket bought on board "
            "costs 3.20 euros, and a day pass 6.80 euros.",
            {
                "question": (
                    ("How much is a single ticket for tram 28 in Lisbon when bought on board?", "3.20 euros"),
                    ("Where does Lisbon's number 28 tram start and end?", "at Martim Moniz and Campo de Ourique"),
                    ("What does a day pass for the tram cost in Lisbon?", "6.80 euros"),
                ),
                "keyword": (("lisbon tram 28 ticket price", "3.20 euros"),),
                "title": (("Route and fares of tram 28 in Lisbon", "Martim Moniz to Campo de Ourique, 3.20 euros"),),
                "paraphrase": (("Lisbon's tram 28 links Martim Moniz with Campo de Ourique.", "Martim Moniz"),),
                "similar_question": (("What do I pay for one ride on Lisbon's tram 28?", "3.20 euros"),),
                "claim": (("A ticket bought on board tram 28 in Lisbon costs more than 3 euros.", "3.20 euros"),),
                "layperson": (("What do I pay if I just hop on the old tram in Lisbon?", "3.20 euros"),),
            },
        ),
        _SolvedExample(
            "Employees who have worked for Nordwind AG for at least 12 months are entitled to 10 days of paid parental "
            "leave. The request must reach human resources 8 weeks before the leave begins.",
            {
                "question": (
                    ("How many days of paid parental leave does Nordwind AG grant?", "10 days"),
                    ("How early must parental leave be requested at Nordwind AG?", "8 weeks before it begins"),
                    ("Who is entitled to parental leave at Nordwind AG?", "who has worked there for 12 months"),
                ),
                "keyword": (("nordwind parental leave deadline", "8 weeks before the leave begins"),),
                "title": (("Paid parental leave at Nordwind AG", "10 days after 12 months"),),
                "paraphrase": (("After a year at Nordwind AG, parents may take ten paid days off.", "10 days"),),
                "similar_question": (("When do I have to apply for parental leave at Nordwind?", "8 weeks before"),),
                "claim": (("Nordwind AG grants paid parental leave only after a year of work.", "12 months"),),
                "layperson": (("How long can I stay home with my baby and still get paid by Nordwind?", "10 days"),),
            },
        ),
    ),
    "zh": (
        _SolvedExample(
            "里斯本28路电车从马蒂姆·莫尼兹广场开往坎普德奥里克。车上购买单程票3.20欧元，一日票6.80欧元。",
            {
                "question": (
                    ("在里斯本28路电车上买单程票多少钱？", "3.20欧元"),
                    ("里斯本28路电车的起点和终点在哪里？", "马蒂姆·莫尼兹广场和坎普德奥里克"),
                    ("里斯本电车的一日票多少钱？", "6.80欧元"),
                ),
                "keyword": (("里斯本 28路电车 票价", "3.20欧元"),),
                "title": (("里斯本28路电车的路线与票价", "单程票3.20欧元"),),
                "paraphrase": (("里斯本28路电车连接马蒂姆·莫尼兹广场与坎普德奥里克。", "28路"),),
                "similar_question": (("坐一次里斯本28路电车要花多少钱？", "3.20欧元"),),
                "claim": (("里斯本28路电车车上购票的单程票价超过3欧元。", "3.20欧元"),),
                "layperson": (("在里斯本坐那种老电车，上车现买票要多少钱？", "3.20欧元"),),
            },
        ),
        _SolvedExample(
            "在北风公司工作满12个月的员工可享受10天带薪育儿假，须在休假开始前8周向人力资源部提出申请。",
            {
                "question": (
                    ("北风公司的带薪育儿假有多少天？", "10天"),
                    ("北风公司的育儿假要提前多久申请？", "8周"),
                    ("北风公司的哪些员工可以休育儿假？", "工作满12个月的员工"),
                ),
                "keyword": (("北风公司 育儿假 申请期限", "提前8周"),),
                "title": (("北风公司带薪育儿假规定", "10天"),),
                "paraphrase": (("在北风公司工作一年后，员工可以带薪休十天育儿假。", "10天"),),
                "similar_question": (("我什么时候要向北风公司提交育儿假申请？", "休假开始前8周"),),
                "claim": (("北风公司的员工工作满一年才有带薪育儿假。", "12个月"),),
                "layperson": (("生了孩子，北风公司能让我拿着工资在家待几天？", "10天"),),
            },
        ),
    ),
}
_HEADS: Final = {
    "en": "Passages, and what people type into a search engine to find them.\n\n",
    "zh": "下面是一些段落，以及人们为找到它们而在搜索引擎中输入的内容。\n\n",
}
_STYLES: Final = {"en": "Other things that people typed:\n{list}\n\n", "zh": "人们还输入过：\n{list}\n\n"}
_PASSAGES: Final = {"en": "Passage: {context}\nQueries:\n", "zh": "段落：{context}\n查询：\n"}
_NEXT_PASSAGE: Final = re.compile(r"^\s*(?:Passage:|段落：)", re.MULTILINE)


def few_shot_prompt(
    language: str, kinds: Sequence[QueryKind], context: str, examples: Iterable[str], *, with_answers: bool
) -> str:
    """Build a prompt that ends where the model goes on with the first query.

    Args:
        language: ``"en"`` or ``"zh"``.
        kinds: Kind of each query, in order; the solved examples show the same kinds.
        context: The passage, or what stands for it.
        examples: Real queries of users, for the style.
        with_answers: Show answers too.
    """
    style = "\n".join(f"- {' '.join(example.split())}" for example in examples)
    parts = [_HEADS[language], _STYLES[language].format(list=style) if style else ""]
    for solved in _EXAMPLES[language]:
        left = {kind: list(pairs) for kind, pairs in solved.pairs.items()}
        pairs = [left[kind].pop(0) for kind in kinds if left[kind]]
        lines = [_line(n, query, answer if with_answers else "") for n, (query, answer) in enumerate(pairs, 1)]
        parts += [_PASSAGES[language].format(context=solved.passage), "\n".join(lines), "\n\n"]
    return "".join(parts) + _PASSAGES[language].format(context=context) + _start(with_answers)


def read_continuation(text: str, *, with_answers: bool) -> str:
    """What the model wrote about the passage of the prompt, as if it had written the first mark too."""
    text = without_reasoning(text).lstrip()
    following = _NEXT_PASSAGE.search(text)
    text = text[: following.start()] if following else text
    start = _start(with_answers)
    return text if text.startswith(start) else f"{start} {text}"


def _line(n: int, query: str, answer: str) -> str:
    return f"Q: {query}\nA: {answer}" if answer else f"{n}. {query}"


def _start(with_answers: bool) -> str:
    return "Q:" if with_answers else "1."
