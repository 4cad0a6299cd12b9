"""The holes of each chapter: the chapter's own functions and the checks of the reader's."""
