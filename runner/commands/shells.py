"""How bash, zsh and fish ask for completions, and how they are answered; importing this tells click of it.

Each script hands over the line up to the cursor and gets back one candidate a line, quoted as its shell wants it.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import ClassVar

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from charrun.commands.words import paths

_LINE = "CHARRUN_LINE"
_BREAKS = "CHARRUN_BREAKS"
_CURSOR = "\x00"
_PLAIN = re.compile(r"([^\w./:=@%+,~-])")
_LONGEST_HELP = 60
_OPEN = ("/", "=", ":", ".")


class _Shell(ShellComplete):
    """What the shells have in common."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one at the cursor, without the program's name, and that word as far as it is typed."""
        *words, last = split_arg_string(os.environ[_LINE] + _CURSOR)
        return words[1:], last.removesuffix(_CURSOR)

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Candidates as whole words, with files and folders looked up here."""
        self.ctx_args["obj"] = list(args)
        found: list[CompletionItem[str]] = []
        # click completes the value of --option=VALUE without the option.
        front = incomplete[: incomplete.index("=") + 1] if re.match(r"--?[\w-]+=", incomplete) else ""
        for item in super().get_completions(args, incomplete):
            if item.type == "plain":
                found.append(CompletionItem(front + item.value, help=item.help))
            else:
                endings = None if item.type == "dir" else ("",)
                found += [CompletionItem(front + path) for path in paths(incomplete.removeprefix(front), endings)]
        return found


@add_completion_class
class Bash(_Shell):
    """bash replaces what follows its last word break, which a colon or an equals sign is."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = """\
%(complete_func)s() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -n $candidate ]] && COMPREPLY+=("$candidate")
    done < <(%(complete_var)s=bash_complete CHARRUN_LINE="${COMP_LINE:0:COMP_POINT}" \\
        CHARRUN_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/=:.] ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def complete(self) -> str:
        """One candidate a line, without what stands before the last word break."""
        args, incomplete = self.get_completion_args()
        quoted = _open_quote(os.environ[_LINE])
        breaks = [] if quoted else [incomplete.rfind(sign) for sign in os.environ[_BREAKS] if sign in ":=@"]
        kept = max([at + 1 for at in breaks], default=0)
        values = [item.value for item in self.get_completions(args, incomplete)]
        return "\n".join(value if quoted else _escaped(value[kept:]) for value in values)


@add_completion_class
class Zsh(_Shell):
    """zsh shows what each candidate is."""

    name: ClassVar[str] = "zsh"
    source_template: ClassVar[str] = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a answers words_done words_open
    local answer
    answers=("${(@f)$(%(complete_var)s=zsh_complete \\
        CHARRUN_LINE="${(j: :)words[1,CURRENT-1]} ${QIPREFIX}${IPREFIX}${PREFIX}" ${~words[1]} 2>/dev/null)}")
    for answer in $answers; do
        case $answer in
            (+*) words_open+=("${answer#?}") ;;
            (-*) words_done+=("${answer#?}") ;;
        esac
    done
    (( $#words_done )) && _describe -V charrun words_done -Q -U
    (( $#words_open )) && _describe -V charrun words_open -Q -U -S ''
    (( $#words_done + $#words_open ))
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef %(complete_func)s %(prog_name)s
fi
"""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """`value:help`, as `_describe` reads it, after a plus where the word goes on."""
        value = item.value if _open_quote(os.environ[_LINE]) else _escaped(item.value)
        value = value.replace("\\", r"\\").replace(":", r"\:")  # _describe takes one level of backslashes off
        mark = "+" if item.value.endswith(_OPEN) else "-"
        return f"{mark}{value}:{_help(item)}" if item.help else f"{mark}{value}"


@add_completion_class
class Fish(_Shell):
    """fish quotes candidates itself, and shows what each is."""

    name: ClassVar[str] = "fish"
    source_template: ClassVar[str] = """\
function %(complete_func)s
    set -lx %(complete_var)s fish_complete
    set -lx CHARRUN_LINE (commandline -cp | string collect)
    set -l words (commandline -opc)
    $words[1] 2>/dev/null
end
complete --command %(prog_name)s --no-files --keep-order --arguments '(%(complete_func)s)'
"""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """The value, a tab, the help."""
        return f"{item.value}\t{_help(item)}" if item.help else item.value


def _escaped(value: str) -> str:
    """A word as it is typed unquoted; `~/` in front stays what it is."""
    return _PLAIN.sub(r"\\\1", value)


def _help(item: CompletionItem[str]) -> str:
    text = " ".join((item.help or "").split())
    return text if len(text) <= _LONGEST_HELP else text[: _LONGEST_HELP - 1].rstrip() + "…"


def _open_quote(line: str) -> bool:
    """Whether the line ends within quotes."""
    try:
        shlex.split(line)
    except ValueError as error:
        return "quotation" in str(error)
    return False
