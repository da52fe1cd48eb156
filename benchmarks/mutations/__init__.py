"""Small files of every kind, whole and damaged, to try readers with."""
