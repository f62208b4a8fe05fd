"""What the parts of an engine ask of each other.

`Backend`: what the pool's driver and the canceller see of Django's wrapper, and what each vendor fills in.
`Borrower`: what a guarded connection and its cursors report to their user.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from fullhouse.db.pool_settings import PoolSettings
from fullhouse.db.statements import Statements


class SlotTakenError(Exception):
    """In a fleet: another session stands on the slot, which its server has not let go yet. It is not used again."""


class Backend:
    """A wrapper of Django's, on a pool or with a session of its own (`unpooled`)."""

    alias: str
    vendor: str
    settings_dict: dict[str, Any]
    connection: Any
    pool_settings: PoolSettings
    statements: Statements

    if TYPE_CHECKING:  # Django's, which nothing here may stand before

        def __init__(self, settings_dict: Mapping[str, Any], alias: str) -> None: ...
        def get_connection_params(self) -> dict[str, Any]: ...
        def ensure_connection(self) -> None: ...
        def cursor(self) -> Any: ...
        def close(self) -> None: ...

    def unpooled(self) -> Self:
        """A wrapper of the same class with a session of its own, which stands on no slot."""
        raise NotImplementedError

    def let_go(self) -> Any:
        """Leave the session of this unpooled wrapper to the pool. Raises the driver's error where it was closed."""
        raise NotImplementedError

    # -- What each vendor fills in -------------------------------------------------------------------------------

    def _is_gone(self) -> bool:
        """Whether the driver knows that the connection is dead; costs no round trip."""
        return False

    @staticmethod
    def autocommit_on(connection: Any) -> None:
        """Have each statement on the driver's connection be a transaction of its own."""
        raise NotImplementedError

    def opened(self) -> None:
        """Called on an unpooled wrapper when it has opened a connection for the pool."""

    @staticmethod
    def guard(connection: Any) -> None:
        """Put a connection under the pool's rules (see `guard`)."""
        raise NotImplementedError

    @staticmethod
    def client_state(connection: Any) -> Any:
        """What of the driver's own settings a borrower can change on a connection; compared by equality."""
        raise NotImplementedError

    @staticmethod
    def idle_limit_s(connection: Any) -> float | None:
        """Seconds after which the server ends an idle session; None: never."""
        raise NotImplementedError

    @staticmethod
    def descriptor(connection: Any) -> int:
        """The descriptor of the connection's socket."""
        raise NotImplementedError

    @staticmethod
    def answers(connection: Any) -> bool:
        """Whether the session is alive, by one round trip."""
        raise NotImplementedError

    def reset_session(self) -> bool:
        """Make the session of this unpooled wrapper like new; False: it cannot be."""
        raise NotImplementedError

    @staticmethod
    def says_full(error: BaseException) -> bool:
        """Whether the driver's `error` says that the server has no session left."""
        raise NotImplementedError


class Borrower(Protocol):
    """What a guarded connection asks of its user.

    internal: how many steps of Django or the pool are at work on the connection: while there are any, nothing is asked.
    thread_ident: the thread that may use the connection. open_cursors: the connection's, by identity.
    """

    internal: int
    thread_ident: int
    open_cursors: Mapping[int, Any]

    @property
    def allow_thread_sharing(self) -> bool:
        """Whether other threads may use it too."""

    def statement_begins(self, sql: Any) -> None:
        """A statement comes next. `sql` is a text, what the driver makes one of, or UNREADABLE."""

    def statement_failed(self, error: BaseException) -> None:
        """The driver has raised `error`."""

    def refuse_if_cancelled(self) -> None:
        """Raise for a request that was cancelled what the server may not have: MySQL's SLEEP just returns early."""

    def used_directly(self) -> None:
        """The driver's connection is used directly, which may change anything about it."""

    def cursor_opened(self, cursor: Any) -> None:
        """One of the connection's cursors is open from now on."""

    def cursor_closed(self, cursor: Any) -> None:
        """One of them is closed."""

    def cursor_lost(self, cursor: Any) -> None:
        """One of them was dropped, in another thread: close it later, in this one."""
