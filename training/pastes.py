"""Made-up logs, traces, diffs, configurations and shell sessions, as people paste them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

SEED = 20261123
_SERVICES = "api auth billing cart catalog gateway ingest mailer orders payments queue scheduler search sync uploads worker".split()
_HOSTS = "web-1 web-2 db-main cache01 node7 ip-10-0-3-17 edge.fra2 raspi srv-legacy k8s-worker-3 nas build-agent-5".split()
_FILES = "main app server utils handler client models views parser router config tests worker store session index".split()
_NAMES = "user order item total count result request payload token cache buffer row price path name value key node".split()
_FUNCTIONS = "load save parse fetch render update handle connect validate process send build resolve open close run".split()
_LEVELS = ("INFO", "INFO", "INFO", "WARN", "ERROR", "DEBUG", "FATAL")
_EVENTS = (
    "connection refused by upstream {host}:{port}", "request {id} finished in {n} ms", "retrying in {n} seconds (attempt {k} of 5)",
    "failed to acquire lock on {name} after {n} ms", "session {id} closed by peer", "cache miss for key {name}:{n}",
    "disk usage at {k}0% on /dev/sda{k}", "user {n} logged in from 10.0.{k}.{n}", "timeout while waiting for response from {service}",
    "worker {k} started, pid {n}", "received signal SIGTERM, shutting down", "invalid token for client {id}",
    "heartbeat ok, lag {n}", "GC pause {n} ms, heap {n}M", "slow query ({n} ms): SELECT * FROM {name}s WHERE id = {n}",
    "certificate for {host} expires in {k} days", "queue depth {n}", "dropped packet seq={n} len={k}", "calculated steps={n} altitude={k}",
    "node {host} is not responding, event interval expired", "unit failed", "link down on port {k}", "machine check interrupt (bit=0x{id})",
    "data TLB error interrupt", "corrected ECC error, address 0x{id}", "proxy.example.org:{port} open through proxy {host}:{port} HTTPS",
    "close, {n} bytes sent, {n} bytes received, lifetime 00:0{k}", "mod_jk child workerEnv in error state {k}",
    "Failed password for invalid user {name} from 10.{k}.4.{n} port {port} ssh2", "pam_unix(sshd:auth): authentication failure; uid=0 euid=0",
    "session opened for user root by (uid=0)", "Processed session termination for sessionid: 0x{id}", "notification timeout {n}",
    "Reconnecting to {service}", "onStandStepChanged {n}", "setTodayTotalDetailSteps={n}##{n}##{n}", "screen status unknown", "flush complete {name}.{k}",
)  # fmt: skip
_ASKS = {
    "en": ("what went wrong here?", "explain this please", "why?", "any idea?", "what does this mean", "can you fix this", "help",
           "please analyse this log", "is this bad?", "what should I do about this", "find the root cause", "seeing this since this morning:",
           "got this after the update:", "this is the output:", "what is this error"),
    "de": ("was ist hier falsch?", "erkläre das bitte", "woran liegt das?", "was bedeutet das?", "Seit heute früh sehe ich das:"),
    "fr": ("qu'est-ce qui ne va pas ici ?", "explique ce journal s'il te plaît", "pourquoi ?", "ça veut dire quoi ?"),
    "es": ("¿qué está mal aquí?", "explica esto por favor", "¿por qué pasa esto?", "¿qué significa este error?"),
    "it": ("cosa non va qui?", "spiegami questo log", "perché succede?"), "pt": ("o que está errado aqui?", "explique este log", "por que isso acontece?"),
    "ru": ("что здесь не так?", "объясни этот лог", "почему так?", "в чём ошибка?"), "zh": ("这里出了什么问题？", "解释一下这个日志", "为什么会这样？", "怎么解决"),
    "ja": ("これはどういう意味ですか？", "何が原因ですか", "このログを説明して"), "ko": ("여기서 뭐가 잘못됐나요?", "이 로그를 설명해 주세요"),
    "ar": ("ما الخطأ هنا؟", "اشرح هذا السجل"), "hi": ("यहाँ क्या गलत है?", "इस लॉग को समझाइए"), "tr": ("burada yanlış olan ne?", "bu kaydı açıkla"),
}  # fmt: skip


class _Maker:
    """Random pieces of technical text."""

    def __init__(self) -> None:
        self.random = random.Random(SEED)

    def pick(self, choices: tuple[str, ...] | list[str]) -> str:
        return self.random.choice(choices)

    def event(self) -> str:
        text = self.pick(_EVENTS)
        while "{" in text:
            text = text.replace("{id}", f"{self.random.getrandbits(40):010x}", 1).replace("{n}", str(self.random.randint(2, 99999)), 1)
            text = text.replace("{k}", str(self.random.randint(1, 9)), 1).replace("{port}", str(self.random.randint(1024, 65000)), 1)
            text = text.replace("{host}", self.pick(_HOSTS), 1).replace("{service}", self.pick(_SERVICES), 1)
            text = text.replace("{name}", self.pick(_NAMES), 1)
        return text

    def stamp(self) -> Callable[[], str]:
        r = self.random
        year, month, day, hour = r.randint(2003, 2026), r.randint(1, 12), r.randint(1, 28), r.randint(0, 23)
        months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
        forms = (
            lambda m, s: f"{year}-{month:02}-{day:02} {hour:02}:{m:02}:{s:02},{r.randint(0, 999):03}",
            lambda m, s: f"{year}-{month:02}-{day:02}T{hour:02}:{m:02}:{s:02}.{r.randint(0, 999):03}Z",
            lambda m, s: f"{months[month - 1]} {day:2} {hour:02}:{m:02}:{s:02}",
            lambda m, s: f"[{months[month - 1]} {day:02} {hour:02}:{m:02}:{s:02} {year}]",
            lambda m, s: f"{year}{month:02}{day:02}-{hour}:{m}:{s}:{r.randint(0, 999)}",
            lambda m, s: f"{r.randint(10**9, 2 * 10**9)} {year}.{month:02}.{day:02}",
            lambda m, s: f"[{month:02}.{day:02} {hour:02}:{m:02}:{s:02}]",
            lambda m, s: f"{r.randint(100000, 999999)}",
            lambda m, s: f"{hour:02}:{m:02}:{s:02}",
            lambda m, s: f"{day:02}/{month:02}/{year % 100:02} {hour:02}:{m:02}:{s:02}",
        )
        form = r.choice(forms)
        return lambda: form(r.randint(0, 59), r.randint(0, 59))

    def log(self) -> str:
        r, stamp = self.random, self.stamp()
        service, host = self.pick(_SERVICES), self.pick(_HOSTS)
        shapes = (
            lambda: f"{stamp()} {self.pick(_LEVELS)} {service}: {self.event()}",
            lambda: f"{stamp()} - {self.pick(_LEVELS):5} [{self.pick(_FUNCTIONS).title()}Worker:{r.randint(1, 99)}@{r.randint(100, 999)}] - {self.event()}",
            lambda: f"{stamp()} {host} {service}[{r.randint(100, 30000)}]: {self.event()}",
            lambda: f"{stamp()} [{self.pick(_LEVELS).lower()}] {self.event()}",
            lambda: f"{stamp()}|{service.title()}_{self.pick(_NAMES).upper()}|{r.randint(1000, 90000000)}|{self.event()}",
            lambda: f"{stamp()} {host} RAS KERNEL {self.pick(_LEVELS)} {self.event()}",
            lambda: f"- {stamp()} R{r.randint(10, 99)}-M{r.randint(0, 1)}-N{r.randint(0, 9)} {self.event()}",
            lambda: f"level={self.pick(_LEVELS).lower()} ts={stamp()} caller={self.pick(_FILES)}.go:{r.randint(5, 400)} msg=\"{self.event()}\"",
            lambda: f"{stamp()} {service}.exe - {self.event()}",
            lambda: f"{stamp()} {host} unix.hw state_change.unavailable {r.randint(10**9, 2 * 10**9)} 1 {self.event()}",
            lambda: f'{{"time":"{stamp()}","level":"{self.pick(_LEVELS).lower()}","service":"{service}","msg":"{self.event()}"}}',
        )
        shape = r.choice(shapes)
        return "\n".join(shape() for _ in range(r.randint(1, 12)))

    def trace(self) -> str:
        r = self.random
        kind = r.randrange(5)
        error = self.pick(["ValueError", "KeyError", "TypeError", "AttributeError", "ConnectionError", "FileNotFoundError", "IndexError", "RuntimeError"])
        if kind == 0:
            frames = [f'  File "/srv/{self.pick(_SERVICES)}/{self.pick(_FILES)}.py", line {r.randint(3, 900)}, in {self.pick(_FUNCTIONS)}\n'
                      f"    {self.pick(_NAMES)} = {self.pick(_FUNCTIONS)}({self.pick(_NAMES)})" for _ in range(r.randint(1, 5))]
            return "Traceback (most recent call last):\n" + "\n".join(frames) + f"\n{error}: {self.event()}"
        if kind == 1:
            frames = [f"    at {self.pick(_FUNCTIONS)} (/app/src/{self.pick(_FILES)}.js:{r.randint(1, 400)}:{r.randint(1, 60)})" for _ in range(r.randint(1, 5))]
            return f"{self.pick(['TypeError', 'ReferenceError', 'Error', 'RangeError'])}: {self.event()}\n" + "\n".join(frames)
        if kind == 2:
            frames = [f"\tat com.example.{self.pick(_SERVICES)}.{self.pick(_FILES).title()}.{self.pick(_FUNCTIONS)}({self.pick(_FILES).title()}.java:{r.randint(9, 700)})" for _ in range(r.randint(1, 6))]
            return f"java.lang.{self.pick(['IllegalStateException', 'NullPointerException', 'RuntimeException'])}: {self.event()}\n" + "\n".join(frames)
        if kind == 3:
            return f"panic: {self.event()}\n\ngoroutine {r.randint(1, 80)} [running]:\nmain.{self.pick(_FUNCTIONS)}(0x{r.getrandbits(24):x})\n\t/go/src/{self.pick(_FILES)}.go:{r.randint(4, 300)} +0x{r.getrandbits(8):x}"
        return f"error[E0{r.randint(100, 599)}]: mismatched types\n --> src/{self.pick(_FILES)}.rs:{r.randint(2, 300)}:{r.randint(1, 60)}\n  |\n{r.randint(2, 300)} |     let {self.pick(_NAMES)}: u32 = {self.pick(_FUNCTIONS)}(&{self.pick(_NAMES)});\n  |         ^^^^ expected `u32`, found `String`"

    def diff(self) -> str:
        r = self.random
        file = f"{self.pick(_SERVICES)}/{self.pick(_FILES)}.{self.pick(['py', 'js', 'ts', 'go', 'rs', 'java', 'rb', 'yaml', 'md'])}"
        lines = [f"diff --git a/{file} b/{file}", f"index {r.getrandbits(28):07x}..{r.getrandbits(28):07x} 100644", f"--- a/{file}", f"+++ b/{file}"]
        for _ in range(r.randint(1, 3)):
            lines.append(f"@@ -{r.randint(1, 300)},{r.randint(2, 9)} +{r.randint(1, 300)},{r.randint(2, 9)} @@")
            for _ in range(r.randint(2, 8)):
                lines.append(r.choice(" -+") + r.choice(("    ", "", "        ")) + f"{self.pick(_NAMES)} = {self.pick(_FUNCTIONS)}({self.pick(_NAMES)}, {r.randint(0, 99)})")
        return "\n".join(lines[r.choice((0, 0, 2, 4)) :])

    def shell(self) -> str:
        r = self.random
        command = self.pick(["docker compose up -d", "kubectl get pods -n prod", "npm run build", "pip install -r requirements.txt", "git pull --rebase", "make test",
                             "cargo build --release", "terraform apply", "sudo apt update", "ls -la /var/log", "systemctl restart nginx", "go test ./...", "pytest -q", "df -h", "ps aux | grep java"])
        lines = [f"{self.pick(['$ ', '# ', '> ', 'root@' + self.pick(_HOSTS) + ':~# ', 'dev@laptop:~/src$ '])}{command}"]
        for _ in range(r.randint(1, 6)):
            lines.append(r.choice((f"Error: {self.event()}", f"  {self.pick(_FILES)}.{self.pick(['o', 'js', 'py'])} ... {r.choice(('ok', 'FAILED'))}", self.event(),
                                   f"{self.pick(_NAMES)}-{r.getrandbits(32):08x}   0/1   CrashLoopBackOff   {r.randint(1, 40)}   {r.randint(1, 9)}h", f"Hit:{r.randint(1, 9)} http://archive.example.org stable InRelease")))
        return "\n".join(lines)

    def config(self) -> str:
        r = self.random
        kind = r.randrange(5)
        a, b, c = self.pick(_NAMES), self.pick(_SERVICES), self.pick(_FUNCTIONS)
        if kind == 0:
            return f"services:\n  {b}:\n    image: {b}:{r.randint(1, 9)}.{r.randint(0, 20)}\n    environment:\n      {a.upper()}_URL: http://{self.pick(_HOSTS)}:{r.randint(1024, 9999)}\n    restart: always"
        if kind == 1:
            return f"[{b}]\n{a} = {r.randint(1, 900)}\n{c}_timeout = {r.randint(1, 60)}\nlog_level = debug\n"
        if kind == 2:
            return f'{{\n  "{a}": {r.randint(1, 999)},\n  "{b}": {{"{c}": true, "host": "{self.pick(_HOSTS)}"}},\n  "paths": ["/var/lib/{b}", "/etc/{b}.conf"]\n}}'
        if kind == 3:
            return f"server {{\n    listen {r.randint(80, 9000)};\n    server_name {b}.example.org;\n    location / {{ proxy_pass http://127.0.0.1:{r.randint(1024, 9999)}; }}\n}}"
        return f'resource "aws_{self.pick(["instance", "s3_bucket", "lambda_function"])}" "{b}" {{\n  name = "{a}-{b}"\n  size = {r.randint(1, 64)}\n}}'

    def snippet(self) -> str:
        r = self.random
        a, b, f, g = self.pick(_NAMES), self.pick(_NAMES), self.pick(_FUNCTIONS), self.pick(_FUNCTIONS)
        n = r.randint(0, 99)
        return r.choice((
            f"def {f}_{a}({b}):\n    if not {b}:\n        return None\n    return [{a} for {a} in {b} if {a} > {n}]",
            f"function {f}{a.title()}({b}) {{\n  return {b}.map(x => x.{a}).filter(Boolean);\n}}",
            f"public int {f}{a.title()}(List<Integer> {b}) {{\n    int total = {n};\n    for (int x : {b}) total += x;\n    return total;\n}}",
            f"SELECT {a}, COUNT(*) FROM {b}s WHERE created_at > '2024-01-{r.randint(1, 28):02}' GROUP BY {a} ORDER BY 2 DESC LIMIT {n};",
            f"for i in range({n}):\n    {a} = {f}({b}[i])\n    print({a})",
            f"func {f}({a} string) (int, error) {{\n\t{b}, err := {g}({a})\n\tif err != nil {{\n\t\treturn 0, err\n\t}}\n\treturn {b}, nil\n}}",
            f"const {{ {a}, {b} }} = await {f}(`/api/${{{a}}}`);\nif (!{b}) throw new Error('{g} failed');",
            f"{a} = {n}\n{b} = {n + 3}\nprint({a} + {b})", f"int {a}[] = {{{n}, {n + 2}, {n * 3}}};\nstd::cout << {a}[1] << std::endl;",
            f"class {a.title()}:\n    def __init__(self, {b}):\n        self.{b} = {b}\n\n    def {f}(self):\n        return self.{b} * {n}",
            f"<ul>\n  <li class=\"{a}\">{b}</li>\n  <li>{f}</li>\n</ul>", f".{a}-{b} {{\n  display: flex;\n  margin: {n}px;\n  color: #{r.getrandbits(24):06x};\n}}",
            f"let {a} = {b}.iter().map(|x| x * {n}).collect::<Vec<_>>();", f"{a} <- {f}({b})\nsummary({a})", f"try:\n    {f}({a})\nexcept Exception as e:\n    print(e)",
            f"while ({a} < {n}) {{\n  {a}++;\n  {f}({b});\n}}",
        ))  # fmt: skip


_CODE_ASKS = {
    "en": ("what does this code do?", "add error handling", "find the bug", "make this faster", "write tests for this", "convert this to {lang}", "explain line by line",
           "rename the variables to something better", "what is the output of this code?", "refactor this", "document this function", "is there a memory problem?", "add comments",
           "how many times does the loop run?", "rewrite without the loop", "what is the purpose of this snippet", "simplify this code", "why doesn't this work", "edit this code to print the result"),
    "de": ("was macht dieser Code?", "finde den Fehler", "schreibe Tests dafür", "mach das schneller", "übersetze das nach {lang}"), "fr": ("que fait ce code ?", "trouve le bug", "écris des tests", "convertis en {lang}"),
    "es": ("¿qué hace este código?", "encuentra el error", "escribe pruebas", "conviértelo a {lang}"), "it": ("cosa fa questo codice?", "trova l'errore", "convertilo in {lang}"), "pt": ("o que esse código faz?", "encontre o erro", "converta para {lang}"),
    "ru": ("что делает этот код?", "найди ошибку", "напиши тесты", "перепиши на {lang}"), "zh": ("这段代码是做什么的？", "找出错误", "写测试", "改写成{lang}", "给这段代码加注释"), "ja": ("このコードは何をしますか？", "バグを見つけて", "{lang}に書き換えて"),
    "ko": ("이 코드는 무엇을 하나요?", "버그를 찾아줘", "{lang}로 바꿔줘"), "ar": ("ماذا يفعل هذا الكود؟", "ابحث عن الخطأ"), "hi": ("यह कोड क्या करता है?", "बग ढूंढो"), "tr": ("bu kod ne yapıyor?", "hatayı bul", "{lang} diline çevir"),
}  # fmt: skip
_LANGS = ("Python", "Go", "Rust", "TypeScript", "Java", "C#", "Kotlin", "Ruby", "PHP", "C++")


def rows() -> Iterator[tuple[str, str, str]]:
    """Text, label and family of every paste."""
    make = _Maker()
    asks = [ask for asks in _ASKS.values() for ask in asks]
    code_asks = [ask for asks in _CODE_ASKS.values() for ask in asks]
    for kind, count, paste in (("logs", 500, make.log), ("traces", 220, make.trace), ("diffs", 120, make.diff), ("shell", 120, make.shell), ("configs", 120, make.config)):
        for _ in range(count):
            ask = make.pick(asks) if make.random.random() < 0.5 else ""
            parts = (ask, paste()) if make.random.random() < 0.7 else (paste(), ask)
            yield make.pick(["\n", "\n\n", " "] if ask else ["\n"]).join(part for part in parts if part), "code", f"paste-{kind}"
    for _ in range(400):
        ask = make.pick(code_asks).replace("{lang}", make.pick(_LANGS)) if make.random.random() < 0.85 else ""
        body = make.snippet()
        if make.random.random() < 0.3:
            body = f"```\n{body}\n```"
        parts = (ask, body) if make.random.random() < 0.7 else (body, ask)
        yield "\n".join(part for part in parts if part), "code", "paste-snippets"
