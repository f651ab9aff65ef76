"""playbook_lift: does recording what worked make later searches better, and harm none?"""
