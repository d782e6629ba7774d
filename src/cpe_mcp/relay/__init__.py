"""The data plane: epoll workers that move bytes between two sockets. Nothing heavy is imported anywhere in here."""
