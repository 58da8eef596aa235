"""What the router does where the file is silent: chains of current models, and keywords for `keywords` mode.

The models stand in the shipped price table and are not announced to be withdrawn before 2027 (a test holds both).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Per category and provider, best first. A chain takes the first choices of all providers, then the second ones, so
# that a failover changes the vendor before it changes the class of model. OpenAI's newest reasoning models refuse
# function tools on chat completions: `tools` and `code` use those that take them.
_CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "tools": {
        "anthropic": ("claude-sonnet-5-5", "claude-haiku-5-5"),
        "openai": ("gpt-5.2", "gpt-4.1"),
        "google": ("gemini-3.8-flash", "gemini-4-argon"),
        "openrouter": ("z-ai/glm-5.3", "moonshotai/kimi-k2.6"),
    },
    "code": {
        "anthropic": ("claude-sonnet-5-5", "claude-opus-5-5"),
        "openai": ("gpt-5.2", "gpt-4.1"),
        "google": ("gemini-4-argon", "gemini-3.8-flash"),
        "openrouter": ("z-ai/glm-5.3", "moonshotai/kimi-k2.6"),
    },
    "reasoning": {
        "anthropic": ("claude-opus-5-5", "claude-sonnet-5-5"),
        "openai": ("gpt-6.1-sol", "gpt-5.2"),
        "google": ("gemini-4-argon", "gemini-3.8-flash"),
        "openrouter": ("moonshotai/kimi-k3.1-pro", "z-ai/glm-5.3"),
    },
    "conversation": {
        "anthropic": ("claude-haiku-5-5", "claude-sonnet-5-5"),
        "openai": ("gpt-6-luna", "gpt-4.1-mini"),
        "google": ("gemini-3.5-flash-lite", "gemini-3.8-flash"),
        "openrouter": ("z-ai/glm-5.3-flash", "deepseek/deepseek-v4-flash"),
    },
}
_OLLAMA = {
    "tools": "ollama/llama3.1",
    "code": "ollama/qwen2.5-coder",
    "reasoning": "ollama/deepseek-r1",
    "conversation": "ollama/llama3.1",
}

# Words that hardly ever occur outside their kind of task; matched whole. `tools` is decided by the request's tools.
SHIPPED_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "code": (
        "python", "javascript", "typescript", "golang", "sql", "regex", "regexp", "bash", "powershell", "dockerfile",
        "kubernetes", "html", "css", "json", "yaml", "git", "github", "npm", "pytest", "django",
        "nodejs", "rustc", "kotlin", "php", "c++", "c#", "java", "numpy", "pandas",
        "traceback", "stack trace", "stacktrace", "segfault", "compiler", "debug", "refactor", "unit test", "codebase",
        "source code", "pull request", "merge conflict", "api endpoint", "syntax error",
        "débogue", "déboguer", "refactorise", "code source", "quellcode", "programmiere", "programmierung",
        "código fuente", "depurar", "programación", "código-fonte", "programação", "codice sorgente", "programmazione",
        "код", "скрипт", "отладить", "программирование", "代码", "编程", "调试", "脚本", "コード", "プログラミング",
        "デバッグ", "スクリプト", "코드", "프로그래밍", "디버그", "스크립트", "برمجة", "الكود", "कोड", "प्रोग्रामिंग",
        "kod", "yazılım", "programlama",
    ),
    "reasoning": (
        "prove", "proof", "theorem", "lemma", "equation", "integral", "derivative", "probability", "calculate",
        "solve", "puzzle", "riddle", "step by step", "geometry", "algebra", "calculus",
        "démontre", "démontrer", "prouve", "théorème", "équation", "probabilité", "calcule", "résous", "résoudre",
        "beweise", "beweis", "gleichung", "wahrscheinlichkeit", "berechne", "löse", "rätsel",
        "demuestra", "teorema", "ecuación", "probabilidad", "calcula", "resuelve", "acertijo",
        "prove que", "equação", "probabilidade", "resolva", "dimostra", "equazione", "probabilità", "calcola",
        "risolvi",
        "докажи", "докажите", "теорема", "уравнение", "вероятность", "вычисли", "реши", "головоломка",
        "证明", "定理", "方程", "概率", "计算", "求解", "証明", "方程式", "確率", "計算", "증명", "정리", "방정식",
        "확률", "계산", "أثبت", "معادلة", "احتمال", "احسب", "सिद्ध", "समीकरण", "प्रायिकता", "गणना",
        "kanıtla", "ispatla", "denklem", "olasılık", "hesapla",
    ),
}  # fmt: skip


def default_chain(category: str, configured: Collection[str], default_model: str) -> tuple[str, ...]:
    """The chain of a category for which the file names none, as full ids; never empty.

    `configured` are the providers whose keys are set. Without any curated model among them it begins with
    `default_model`, the full id of DEFAULT_PROVIDER/DEFAULT_MODEL. Ollama comes last: it needs no key.
    """
    kind = category if category in _CHOICES else "conversation"
    ranked = [
        (rank, f"{provider}/{model}")
        for provider, models in _CHOICES[kind].items()
        if provider in configured
        for rank, model in enumerate(models)
    ]
    chain = [model for _, model in sorted(ranked, key=lambda entry: entry[0])] or [default_model]
    return tuple(dict.fromkeys((*chain, _OLLAMA[kind])))
