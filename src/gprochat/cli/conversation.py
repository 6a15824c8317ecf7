"""The interactive conversation: what is typed is a question or a command such as /save."""

from gprochat_core import GPROChatError

from .chat import Chat
from .failures import Failed, complain
from .output import say

__all__ = ["converse"]


def converse(chat: Chat, *, remember: bool) -> None:
    """Hold a conversation on the terminal until the user leaves.

    Args:
        chat: asks the questions.
        remember: whether to keep what is typed for later conversations.

    Raises:
        ModuleNotFoundError: the library for line editing is not installed.
    """
    # Imported here, because a single question needs no line editor.
    from .editor import line_editor, unwrap
    from .slash import Leave, obey

    read = line_editor(remember=remember)
    say(f"{chat.service.url}: /help for help, Ctrl-D to leave")
    if chat.messages:
        say(f"continues a conversation of {len(chat.messages)} messages")
    while True:
        try:
            text = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            block = unwrap(text)
            question = text if block is None else block
            if block is None and text.startswith("/"):
                obey(chat, text)
            elif question.strip():
                chat.ask(question)
        except Leave:
            return
        except KeyboardInterrupt:
            # The chat has shown and remembered what arrived of the reply.
            pass
        except (GPROChatError, Failed) as error:
            complain(error)
