"""Measuring: what swapoff, ksmd, faults, fork and walks cost on large populations.

``settings`` says what is asked for, ``population`` builds it through the engine interface,
``works`` does and times the work, ``limits`` measures what the host can do at best, ``memory`` what
it has room for, ``run`` repeats all that, ``fit`` says how cost grows, ``report`` and ``plot`` show
it. Nothing here knows which engine answers.
"""
