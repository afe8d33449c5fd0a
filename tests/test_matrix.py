"""x SPEC054 """
